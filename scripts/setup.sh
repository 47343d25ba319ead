#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing on Debian 12: what the build needs, and with --demo or --tests what the
# demonstration and the tests need too. Does nothing, quickly, when all of it is there.
set -euo pipefail

usage() {
  echo "usage: scripts/setup.sh [--demo] [--tests]"
  echo "  (none)   compiler, build tools and libraries"
  echo "  --demo   also what scripts/demo.sh runs (qemu-img, mkfs.ext4, python3)"
  echo "  --tests  also the test libraries, the second compiler and the tools to compare with"
}

build=(g++ cmake ninja-build ccache pkg-config libexpected-dev libcli11-dev libfmt-dev
       libsqlite3-dev zlib1g-dev libssl-dev libzstd-dev libdeflate-dev nlohmann-json3-dev libseccomp-dev)
demo=(qemu-utils e2fsprogs python3)
tests=("${demo[@]}" clang-14 libclang-rt-14-dev libgtest-dev libgmock-dev uml-utilities
       libvhdi-utils sqlite3 strace util-linux procps libxml2-utils sleuthkit libtsk-dev
       ntfs-3g dosfstools mtools exfatprogs fdisk valgrind chromium)

packages=("${build[@]}")
for option in "$@"; do
  case "$option" in
    --demo) packages+=("${demo[@]}") ;;
    --tests) packages+=("${tests[@]}") ;;
    -h|--help) usage; exit 0 ;;
    *) usage >&2; exit 16 ;;
  esac
done

# dpkg-query says "ii" for what is installed; nothing at all for what it has never heard of.
present=$(dpkg-query --show --showformat='${db:Status-Abbrev} ${Package}\n' "${packages[@]}" \
          2>/dev/null | awk '$1 == "ii" { print $2 }' || true)
missing=()
for package in "${packages[@]}"; do
  grep --quiet --line-regexp --fixed-strings -- "$package" <<<"$present" || missing+=("$package")
done
if ((${#missing[@]} == 0)); then
  echo "setup: everything is installed"
  exit 0
fi

as_root=()
if ((EUID != 0)); then
  if ! command -v sudo >/dev/null; then
    echo "setup: these packages are missing and only root can install them: ${missing[*]}" >&2
    exit 8
  fi
  as_root=(sudo)
fi
echo "setup: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update --quiet
"${as_root[@]}" apt-get install --yes --quiet --no-install-recommends "${missing[@]}"
