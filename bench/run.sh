#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds imgfsck and the makers of images, measures imgfsck and qemu-img check on them in turn, and
# writes docs/performance.md. Options and names of cases go to bench/measure.py (--help tells them).
set -euo pipefail
cd "$(dirname "$0")/.."

cmake --preset release -DIMGFSCK_BENCH=ON >/dev/null
cmake --build --preset release --target imgfsck imgdump imgio bench_make_image \
  bench_make_text bench_time_one
exec python3 -B bench/measure.py "$@"
