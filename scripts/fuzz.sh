#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Fuzzes every target with libFuzzer (clang 14), address and undefined behaviour sanitizers on, for
# so many seconds each (an hour unless told; reading the seeds comes before). Corpora stay in
# build/fuzz/corpus and are used again; what breaks a promise is left in build/fuzz/finds. What was
# run is in build/fuzz/table.txt; scripts/fuzz_report.py puts it into docs/reliability.md.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=3600
largest=65536  # bytes of an input
minimise=no    # first leave out of a corpus what covers nothing that the rest does not
targets=()
while (($# > 0)); do
  case "$1" in
    --seconds) seconds=$2; shift 2 ;;
    --minimise) minimise=yes; shift ;;
    -h|--help) echo "usage: scripts/fuzz.sh [--seconds N] [--minimise] [TARGET...]"; exit 0 ;;
    -*) echo "usage: scripts/fuzz.sh [--seconds N] [--minimise] [TARGET...]" >&2; exit 16 ;;
    *) targets+=("$1"); shift ;;
  esac
done

scripts/setup.sh --tests
export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1 CCACHE_SLOPPINESS=pch_defines,time_macros
cmake --preset fuzz -DCMAKE_CXX_COMPILER_LAUNCHER=ccache \
      -DIMGFSCK_PRECOMPILE=ON -DIMGFSCK_UNITY=ON >/dev/null
cmake --build --preset fuzz --target fuzz_target fuzz_smoke -j "$(nproc)"

programs=build/fuzz/tests/fuzz
if ((${#targets[@]} == 0)); then
  mapfile -t targets < <("$programs/fuzz_smoke" --list)
fi
finds=build/fuzz/finds
mkdir -p "$finds" build/fuzz/log
# Besides the seeds that the targets make themselves: the damaged images of the fixtures.
fixtures=build/fuzz/fixtures.$largest
if [ ! -d "$fixtures" ]; then
  python3 -B tests/fuzz_corpus.py "$fixtures.new" "$largest"
  mv "$fixtures.new" "$fixtures"
fi
table=build/fuzz/table.txt
status=0
for target in "${targets[@]}"; do
  corpus=build/fuzz/corpus/$target
  mkdir -p "$corpus"
  "$programs/fuzz_smoke" "$target" --seeds "$corpus"
  find "$corpus" -type f -size +"${largest}c" -delete
  folders=("$corpus")
  if [ -d "$fixtures/${target%-*}" ]; then
    folders+=("$fixtures/${target%-*}")
  fi
  export IMGFSCK_TARGET=$target
  if [ "$minimise" = yes ]; then
    mkdir "$corpus.new"
    "$programs/fuzz_target" -merge=1 -timeout=30 -rss_limit_mb=2048 -max_len="$largest" \
        "$corpus.new" "${folders[@]}" >"build/fuzz/log/$target.merge" 2>&1
    rm -r "$corpus"
    mv "$corpus.new" "$corpus"
    folders=("$corpus")
  fi
  log=build/fuzz/log/$target
  # A find ends the run of its target; the others go on.
  began=$SECONDS
  TIMEFORMAT="%U %S"  # processor time: on a busy machine the clock says little
  if ! { time "$programs/fuzz_target" -max_total_time="$seconds" -timeout=30 \
      -rss_limit_mb=2048 -max_len="$largest" -print_final_stats=1 -artifact_prefix="$finds/$target-" \
      "${folders[@]}" >"$log" 2>&1; } 2>"$log.time"; then
    echo "fuzz: $target: see $log" >&2
    status=4
  fi
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  edges=$(grep -o 'cov: [0-9]*' "$log" | tail -1 | cut -d' ' -f2)
  memory=$(sed -n 's/^stat::peak_rss_mb: *//p' "$log")
  count=$(find "$finds" -name "$target-*" | wc -l)
  processor=$(tail -1 "$log.time" | awk '{ printf "%.0f", $1 + $2 }')
  echo "$target $((SECONDS - began)) ${executions:-0} ${edges:-0} ${memory:-0} $count $processor" | tee -a "$table"
done
exit "$status"
