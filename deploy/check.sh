#!/usr/bin/env bash
# Checks the unit and the image without systemd running and without docker, as root on Linux:
#   deploy/check.sh
# The unit by systemd-analyze, where it is installed. The image's RUN steps in a fresh folder; then its command as another
# user who holds no capabilities and sees a read-only file system but for the cache: it must answer, keep what it learned
# in the cache, and end with code 0 on SIGTERM.
set -euo pipefail
repository=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"

if command -v systemd-analyze > /dev/null; then
  systemd-analyze verify "$repository/deploy/outrider.service"
  systemd-analyze security --offline=true --threshold=30 "$repository/deploy/outrider.service" > "$work/security" ||
    { cat "$work/security"; exit 1; }
  tail -1 "$work/security"
fi

# COPY . .: what git has, less what .dockerignore names; files not committed yet count.
mkdir "$work/src" "$work/cache"
git -C "$repository" ls-files -z --cached --others --exclude-standard |
  tar -C "$repository" --exclude-from="$repository/.dockerignore" --null --files-from=- -cf - | tar -C "$work/src" -xf -
cd "$work/src"
sed -n 's/^RUN //p' "$repository/deploy/Dockerfile" |
  sed -e "s#/tmp/#$work/#g; s#/tmp\$#$work#" -e "s#/opt/outrider#$work/opt#g; s#/cache#$work/cache#g" \
    -e 's#^mkdir [^ ]* && ##' -e 's#node:node#65534:65534#' > "$work/steps"
while read -r step; do
  echo "RUN $step"
  bash -ec "$step" < /dev/null > "$work/log" 2>&1 || { cat "$work/log"; exit 1; }
done < "$work/steps"

cat > "$work/run" <<END
mount --make-rprivate /
mount --bind $work/cache $work/cache
mount -o remount,bind,ro /
mount -o remount,bind,ro /tmp 2> /dev/null || true
exec setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all \
  env -i PATH="$work/opt/bin:$(dirname "$(command -v node)"):/usr/bin:/bin" HOME=/ XDG_CACHE_HOME=$work/cache \
  OUTRIDER_API_KEY=key outrider serve --host 0.0.0.0 --port 0
END
unshare -m bash "$work/run" > "$work/out" 2>&1 &
server=$!
trap 'kill -9 $server 2> /dev/null || true; rm -rf "$work"' EXIT
for _ in $(seq 300); do
  port=$(sed -n 's/.*listens on .*:\([0-9]*\)$/\1/p' "$work/out")
  [ -n "$port" ] && break
  sleep 0.1
done
[ -n "$port" ] || { cat "$work/out"; exit 1; }
answer=$(curl -sf "http://127.0.0.1:$port/v1/chat/completions" -H 'authorization: Bearer key' \
  -H 'host: a.name.of.the.proxy' -H 'content-type: application/json' \
  -d '{"messages":[{"role":"user","content":"Tell me a story."}],"max_tokens":64}')
echo "answered: ${answer:0:60}…"
kill -TERM $server
wait $server || { echo "ended with $?"; cat "$work/out"; exit 1; }
trap 'rm -rf "$work"' EXIT
ls "$work"/cache/outrider/learned/*.learned > /dev/null
[ "$(stat -c %u "$work/cache/outrider")" = 65534 ]
echo "the image's steps and command work"
