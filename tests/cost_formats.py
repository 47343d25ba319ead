#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a check and a repair of qcow version 1, VHD and COW cost, in processor time, the kernel's for them
too: in images of twice as many entries twice as much, also where all entries say the same, overlap one
another, lie behind the file's end or go backwards."""
import os
import struct
import subprocess
import unittest

from imglib.cow import Cow
from imglib.programs import BIN, SANITIZED
from imglib.testing import ImageTest, main, sample
from imglib.vhd import UNALLOCATED, Writer

CLUSTER = 4096
ENTRIES = (1024, 2048, 4096, 8192)
# Of the largest in terms of the smallest, which is an eighth of it: 8 when it is linear, 64 when it is
# quadratic. Processor time is not the same twice on a machine that is busy.
MOST = 20
LEAST_SECONDS = 0.02  # what takes less is taken for so much


def places(pattern, count, first, unit, end):
    """Where the entries say that their data is; all multiples of a sector."""
    if pattern == "sound":
        return [first + i * unit for i in range(count)]
    if pattern == "descending":
        return [first + (count - 1 - i) * unit for i in range(count)]
    if pattern == "equal":
        return [first] * count
    if pattern == "overlapping":
        return [first + i * 512 for i in range(count)]
    if pattern == "pairs":  # each place named twice
        return [first + i // 2 * unit for i in range(count)]
    if pattern == "past-end":
        return [end + i * unit for i in range(count)]
    raise AssertionError(pattern)


def vhd(path, pattern, count, parent=None):
    """A disk of `count` blocks of 4 KiB, each there."""
    writer = Writer("win", count * CLUSTER, CLUSTER, 1, parent)
    image = writer.sparse({}, [])
    footer, unit = bytes(image.data[image.end:]), 512 + CLUSTER
    del image.data[image.end:]
    first = len(image.data)
    end = first + count * unit
    table = image.data  # the footer's copy, the header, the table
    for i, place in enumerate(places(pattern, count, first, unit, end)):
        struct.pack_into(">I", table, 1536 + 4 * i, place // 512)
    with open(path, "wb") as file:
        file.write(image.data)
        for _ in range(count):
            file.write(b"\xff" + bytes(511) + b"data" * (CLUSTER // 4))
        file.write(bytes(-(file.tell() + 512) % 4096) + footer)


def differencing(path, pattern, count):
    vhd(path.parent / "parent.vhd", "sound", 16)
    vhd(path, pattern, count, ("parent.vhd", bytes([1] + [0] * 15), 500000000))


def qcow(path, pattern, count):
    """A disk of `count` clusters of 4 KiB in tables of 512."""
    bits, tables = 9, count // 512
    l1 = 48
    first_table = CLUSTER + 8 * tables // CLUSTER * CLUSTER
    first = first_table + tables * CLUSTER
    end = first + count * CLUSTER
    header = struct.pack(">4sIQIIQBBHIQ", b"QFI\xfb", 1, 0, 0, 0, count * CLUSTER, 12, bits, 0, 0, l1)
    table_places = [first_table + i * CLUSTER for i in range(tables)]
    if pattern == "one-table":
        table_places = [first_table] * tables
        pattern = "sound"
    with open(path, "wb") as file:
        file.write(header + struct.pack(f">{tables}Q", *table_places))
        file.seek(first_table)
        file.write(struct.pack(f">{count}Q", *places(pattern, count, first, CLUSTER, end)))
        for _ in range(count):
            file.write(b"data" * (CLUSTER // 4))


def cow(path, pattern, count):
    """A disk of `count` times eight sectors."""
    base = path.parent / "base.img"
    size = count * 8 * 512
    with open(base, "wb") as file:
        file.truncate(size)
    image = Cow("uml-v3", size)
    image.header(base, int(base.stat().st_mtime))
    marks = {"sound": 0xFF, "past-end": 0xFF, "every-second": 0x55}[pattern]
    image.data[image.bitmap:image.bitmap + count] = bytes([marks]) * count
    if pattern == "past-end":
        del image.data[image.place + 4096:]
    else:
        image.data[image.place:] = b"data" * (size // 4)
    path.write_bytes(image.data)


PATTERNS = ("sound", "descending", "equal", "overlapping", "pairs", "past-end")
KINDS = ([("vpc", vhd, pattern) for pattern in PATTERNS] +
         [("vpc", differencing, pattern) for pattern in PATTERNS] +
         [("qcow", qcow, pattern) for pattern in (*PATTERNS, "one-table")] +
         [("cow", cow, pattern) for pattern in ("sound", "past-end", "every-second")])
WAYS = (["--deep"], ["--repair=safe"], ["--repair=all"])


@unittest.skipIf(SANITIZED, "what sanitizers add is not the program's cost")
class CostFormats(ImageTest):
    on_disk = False

    def seconds(self, make, form, pattern, way, count):
        self.fresh_folder()
        path = self.folder / f"disk.{form}"
        make(path, pattern, count)
        with open(self._root / "said", "wb") as said, subprocess.Popen(
                [BIN / "imgfsck", "--threads", "1", "-q", *way, path], stdout=said,
                stderr=said) as process:
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        self.assertIn(process.returncode, (0, 1, 4), (self._root / "said").read_text()[-500:])
        return used.ru_utime + used.ru_stime

    def test_linear(self):
        cases = [(kind, way) for kind in KINDS for way in WAYS]
        once_quadratic = [(("vpc", vhd, "overlapping"), WAYS[0]), (("vpc", vhd, "equal"), WAYS[1]),
                          (("vpc", differencing, "sound"), WAYS[0])]
        rest = [case for case in cases if case not in once_quadratic]
        for (form, make, pattern), way in once_quadratic + sample(rest, 5):
            with self.subTest(make=make.__name__, pattern=pattern, way=way):
                cost = [self.seconds(make, form, pattern, way, count) for count in ENTRIES]
                if cost[-1] > MOST * max(cost[0], LEAST_SECONDS):  # somebody else's doing?
                    cost = [min(one, self.seconds(make, form, pattern, way, count))
                            for one, count in zip(cost, ENTRIES)]
                self.assertLess(cost[-1], MOST * max(cost[0], LEAST_SECONDS), cost)


if __name__ == "__main__":
    main()
