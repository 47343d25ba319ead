#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what the tests need, builds with g++ (release) and with clang 14 (address and undefined
# behaviour sanitizers), warnings being errors in both, and runs every test of both in one go. The
# last lines of output are ctest's summary; the exit status is ctest's.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  echo "usage: scripts/test.sh [--long] [--tidy] [ctest options...]"
  echo "  --long  the full matrices instead of a seeded sample, and --tidy; takes hours"
  echo "  --tidy  clang-tidy over every source file first"
}

long=OFF
once=ON  # compiled to be run once
tidy=no
ctest_options=()
for option in "$@"; do
  case "$option" in
    --long) long=ON; tidy=yes; once=OFF ;;
    --tidy) tidy=yes ;;
    -h|--help) usage; exit 0 ;;
    *) ctest_options+=("$option") ;;
  esac
done

scripts/setup.sh --tests
jobs=$(nproc)
# What was compiled in one clone serves the next.
export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1 CCACHE_SLOPPINESS=pch_defines,time_macros
for preset in release asan; do
  cmake --preset "$preset" -DCMAKE_CXX_COMPILER_LAUNCHER=ccache \
        -DIMGFSCK_TESTS=ON -DIMGFSCK_LONG_TESTS=$long \
        -DIMGFSCK_PRECOMPILE=$once -DIMGFSCK_UNITY=$once >/dev/null
  cmake --build --preset "$preset" -j "$jobs"
done

if [ "$tidy" = yes ]; then
  scripts/tidy.sh
fi

# Repairs sync to disk at every step; in memory the tests take a fifth of the time.
if [ -z "${TMPDIR:-}" ] && [ "$(df --output=avail -m /dev/shm 2>/dev/null | tail -1)" -ge 4096 ]; then
  export TMPDIR=/dev/shm
fi

# One run over both builds, so that there is one summary and nothing after it.
mkdir -p build/all
printf 'subdirs("../release" "../asan")\n' >build/all/CTestTestfile.cmake
exec ctest --test-dir build/all --output-on-failure --parallel "$jobs" "${ctest_options[@]}"
