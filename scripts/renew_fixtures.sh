#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Writes anew what the tests expect word for word: tests/fixtures/*/*/expect.*, the session in
# README.md, docs/comparison.md. Read `git diff` afterwards: whatever changed for a reason you cannot name is a bug.
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1-}" in
  -h|--help)
    echo "usage: scripts/renew_fixtures.sh [FORMAT | FORMAT/NAME]..."
    echo "Without names, all. IMGFSCK_BIN says where the programs are; else they are built first."
    exit 0 ;;
esac

if [ -z "${IMGFSCK_BIN-}" ]; then
  cmake --build --preset release --target imgfsck imgdump
  export IMGFSCK_BIN=$PWD/build/release/bin
fi
python3 -B tests/fixtures.py --renew "$@"
if (($# == 0)); then
  python3 -B tests/readme.py --renew
  python3 -B tests/comparison.py --renew
  python3 -B tests/differential.py --renew
fi
git status --short -- tests/fixtures README.md docs
