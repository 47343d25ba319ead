#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs clang-tidy (.clang-tidy) over the sources named, or over all of them. Needs a configured
# build/asan, whose compile commands name the compiler that clang-tidy understands.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v clang-tidy-14 >/dev/null; then
  apt-get update --quiet && apt-get install --yes --quiet --no-install-recommends clang-tidy-14
fi
[ -f build/asan/compile_commands.json ] || cmake --preset asan >/dev/null
files=("$@")
if ((${#files[@]} == 0)); then
  mapfile -t files < <(git ls-files 'base/*.cc' 'io/*.cc' 'model/*.cc' 'formats/*.cc' 'chain/*.cc' \
                                    'analyzers/*.cc' 'repair/*.cc' 'report/*.cc' 'tools/*.cc')
fi
printf '%s\0' "${files[@]}" |
  xargs --null --max-args=1 --max-procs="$(nproc)" clang-tidy-14 --quiet -p build/asan
echo "tidy: ${#files[@]} files"
