#!/usr/bin/env bash
# Everything that `npm run native` and its tests need for all targets, from Debian's packages. Root's rights are needed.
set -euo pipefail
packages=(
  g++ g++-aarch64-linux-gnu qemu-user
  clang-19 lld-19 wasi-libc libc++-19-dev-wasm32 libc++abi-19-dev-wasm32 libclang-rt-19-dev-wasm32
)
dpkg --status "${packages[@]}" >/dev/null 2>&1 && exit 0
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
