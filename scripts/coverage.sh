#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Counts which lines of the sources the tests run: builds with g++ --coverage into build/coverage, runs
# the unit tests and the image tests (without those that kill processes or measure), asks gcov, and
# writes the table into docs/reliability.md. Lines of parsers, analyzers and passes that nothing ran
# are listed in build/coverage/never_run.txt. Counts of an earlier run are thrown away, unless --add.
set -euo pipefail
cd "$(dirname "$0")/.."

usage="usage: scripts/coverage.sh [--add] [--report] [ctest options...]
  --add     keep the counts that there are
  --report  run no test: only the table and the list"
add=no
tests=yes
options=()
for option in "$@"; do
  case "$option" in
    --add) add=yes ;;
    --report) tests=no; add=yes ;;
    -h|--help) echo "$usage"; exit 0 ;;
    *) options+=("$option") ;;
  esac
done

scripts/setup.sh --tests
export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1 CCACHE_SLOPPINESS=pch_defines,time_macros
cmake --preset coverage -DCMAKE_CXX_COMPILER_LAUNCHER=ccache -DIMGFSCK_TESTS=ON \
      -DIMGFSCK_PRECOMPILE=ON -DIMGFSCK_UNITY=ON >/dev/null
cmake --build --preset coverage -j "$(nproc)"
if [ "$add" = no ]; then
  find build/coverage -name '*.gcda' -delete
fi
if [ "$tests" = yes ]; then
  if [ -z "${TMPDIR:-}" ] && [ -w /dev/shm ]; then
    export TMPDIR=/dev/shm
  fi
  for program in build/coverage/tests/test_*; do
    if [ -x "$program" ] && [ -f "$program" ]; then
      "$program" --gtest_brief=1 || echo "coverage: $program failed; what it ran is counted" >&2
    fi
  done
  # A killed process counts nothing; what measures time or builds runs no line of its own.
  ctest --test-dir build/coverage --parallel "$(nproc)" --output-on-failure \
        --tests-regex '^coverage\.image\.' \
        --exclude-regex 'image\.(kill_.*|fault_.*|cost|limits|install|readme|sandbox|vhd_large)$' \
        "${options[@]}" || echo "coverage: some tests failed; what they ran is counted" >&2
fi
python3 -B scripts/coverage_report.py
