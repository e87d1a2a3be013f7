#!/usr/bin/env bash
# The browser for the playground's tests, from Debian's packages. Root's rights are needed.
set -euo pipefail
test -x /usr/bin/chromium && exit 0
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null
