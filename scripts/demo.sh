#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From a bare Debian 12 to a disk image brought back: installs what is missing, builds, makes a real
# image with a file system in it, damages it, and lets imgfsck find the damage, repair it and roll
# the repair back, and imgdump answer a question in SQL. Works in a temporary folder and leaves
# nothing of it behind. Stops with an error at the first step that does not do what it says.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

scripts/setup.sh --demo
cmake --preset release -DCMAKE_CXX_COMPILER_LAUNCHER=ccache -DIMGFSCK_TESTS=OFF >/dev/null
cmake --build --preset release -j "$(nproc)"
PATH="$root/build/release/bin:$PATH"
export PATH PYTHONDONTWRITEBYTECODE=1

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

title() { printf '\n== %s\n' "$*"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }
# expect STATUS COMMAND...: runs it before the reader's eyes; any other exit status ends the demo.
expect() {
  local wanted=$1 status=0
  shift
  printf '\n$ %s\n' "$*"
  "$@" || status=$?
  [ "$status" -eq "$wanted" ] || fail "$1 answered $status instead of $wanted"
  ((wanted == 0)) || printf '(exit status %d)\n' "$status"
}

title "A disk with a file system, written by QEMU"
mkdir tree
cp -r "$root"/{base,io,model} "$root"/LICENSE tree/
head -c 3M /dev/urandom >tree/noise
truncate -s 96M disk.raw
mkfs.ext4 -q -d tree -L demo disk.raw
expect 0 qemu-img convert -f raw -O qcow2 -o cluster_size=16k disk.raw disk.qcow2
expect 0 imgfsck disk.qcow2

title "Damage: the table of counts, a COPIED flag, and the mark of a VM that saw trouble"
for damage in rt-unaligned l2-copied-clear hdr-corrupt; do
  expect 0 python3 "$root/tests/imgdamage.py" "$damage" disk.qcow2
done
cp disk.qcow2 damaged.qcow2

title "What QEMU makes of it: it will not even open the image"
expect 1 qemu-img check -r all disk.qcow2
cp damaged.qcow2 disk.qcow2

title "imgfsck finds the damage, and changes nothing"
expect 4 imgfsck disk.qcow2
expect 4 imgfsck --repair --dry-run disk.qcow2
cmp damaged.qcow2 disk.qcow2 || fail "a check changed the image"

title "... repairs it, with an undo record"
expect 1 imgfsck --repair disk.qcow2
expect 0 imgfsck disk.qcow2
expect 0 qemu-img check disk.qcow2
expect 0 qemu-img compare -f raw -F qcow2 disk.raw disk.qcow2

title "... and takes the repair back, byte for byte"
expect 0 imgfsck --rollback disk.qcow2.imgfsck-undo disk.qcow2
expect 0 cmp damaged.qcow2 disk.qcow2

title "A question: what takes how much room in the file?"
question="SELECT kind, count(*) AS ranges, sum(length) AS bytes FROM region GROUP BY kind ORDER BY kind"
expect 0 imgdump --query "$question" disk.qcow2
[ "$(imgdump --mode csv --query "SELECT count(*) > 0 AS found FROM region WHERE kind = 'data'" \
     disk.qcow2 | tail -n 1)" = 1 ] || fail "the question found no data"

title "Every step did what it says"
