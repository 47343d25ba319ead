#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a check costs, told by numbers that no neighbour on the machine can change: instructions per
L2 entry, their growth over four sizes, address space, lines and allocations of a million
findings."""
import random
import re
import struct
import unittest

from imglib.make import MB
from imglib.programs import BIN, SANITIZED, check_json, copy, qemu_img, qemu_io, run
from imglib.testing import ImageTest, main

CLUSTER = 4096
SIZES = [256 * MB, 512 * MB, 1024 * MB, 2048 * MB]
COPIED = 1 << 63
# Instructions an entry, a fifth above what was measured where the processor has wide registers.
BOUNDS = {"contiguous": 24, "scattered": 64, "shared": 40}


def full_disk(path, size):
    """All of the disk allocated, in the order of the file, the data holes."""
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"cluster_size={CLUSTER},preallocation=metadata",
             path, size)


def tables(file):
    """Offsets of the L2 tables."""
    file.seek(0)
    header = file.read(104)
    l1_size, l1 = struct.unpack_from(">IQ", header, 36)
    file.seek(l1)
    entries = struct.iter_unpack(">Q", file.read(8 * l1_size))
    return [entry & ~COPIED for (entry,) in entries if entry]


def scatter(path):
    """The data's places in another order: every count stays right."""
    with open(path, "r+b") as file:
        order = random.Random(7)
        for offset in tables(file):
            file.seek(offset)
            entries = list(struct.unpack(f">{CLUSTER // 8}Q", file.read(CLUSTER)))
            order.shuffle(entries)
            file.seek(offset)
            file.write(struct.pack(f">{CLUSTER // 8}Q", *entries))


def share(path, size):
    """Snapshots between which one cluster of each table is written, so that each has its tables."""
    for name in ("first", "second"):
        qemu_img("snapshot", "-c", name, path)
        qemu_io(path, [f"write -q {at} {CLUSTER}" for at in range(0, size, CLUSTER * CLUSTER // 8)])


def miscount(path):
    """Every second of two counts is one too high; returns how many."""
    wrong = 0
    with open(path, "r+b") as file:
        header = file.read(104)
        table, = struct.unpack_from(">Q", header, 48)
        clusters, = struct.unpack_from(">I", header, 56)
        file.seek(table)
        for (block,) in struct.iter_unpack(">Q", file.read(clusters * CLUSTER)):
            if block == 0:
                continue
            file.seek(block)
            counts = file.read(CLUSTER).replace(b"\0\1\0\1", b"\0\1\0\2")
            wrong += counts.count(b"\0\2")
            file.seek(block)
            file.write(counts)
    return wrong


@unittest.skipIf(SANITIZED, "what sanitizers add is not the program's cost")
class Cost(ImageTest):
    def instructions(self, path, code=0):
        done = run("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null",
                   BIN / "imgfsck", "--threads", "1", path, timeout=280)
        self.assertEqual(done.code, code, done.out + done.err)
        return int(re.search(r"Collected : (\d+)", done.err).group(1))

    def image(self, kind, size):
        path = self.folder / f"{kind}-{size}.qcow2"
        full_disk(path, size)
        if kind == "scattered":
            scatter(path)
        if kind == "shared":
            share(path, size)
        return path

    def test_instructions_follow_the_entries(self):
        """The difference of two sizes is free of what a start costs; all four lie on a line."""
        for kind, bound in BOUNDS.items():
            with self.subTest(kind=kind):
                cost = [self.instructions(self.image(kind, size)) for size in SIZES]
                entries = [size // CLUSTER * (3 if kind == "shared" else 1) for size in SIZES]
                steps = [(cost[i + 1] - cost[i]) / (entries[i + 1] - entries[i]) for i in range(3)]
                self.assertLess(steps[2], bound, (cost, steps))
                self.assertGreater(steps[2], 1, (cost, steps))
                for step in steps:
                    self.assertLess(abs(step / steps[2] - 1), 0.35, (cost, steps))

    def test_start(self):
        """A small image is checked before forty libraries that nobody asked for would be loaded."""
        path = self.folder / "small.qcow2"
        qemu_img("create", "-q", "-f", "qcow2", path, "1M")
        self.assertLess(self.instructions(path), 25_000_000)

    def test_memory_is_held_to_its_bound(self):
        """A disk of 16 TiB that is empty, one of 8 GiB of small clusters that is full: under
        `ulimit -v`, by what each thread adds."""
        empty = self.folder / "empty.qcow2"
        qemu_img("create", "-q", "-f", "qcow2", empty, "16T")
        full = self.folder / "full.qcow2"
        full_disk(full, 8192 * MB)
        for path, threads, megabytes in ((empty, 1, 160), (full, 1, 160), (full, 4, 480)):
            with self.subTest(path=path.name, threads=threads):
                done = run("bash", "-c", 'ulimit -v "$1"; shift; exec "$@"', "bash",
                           megabytes * 1024, BIN / "imgfsck", "--threads", threads, path)
                self.assertEqual(done.code, 0, done.out + done.err)

    def test_a_million_findings(self):
        """They are counted, and cost neither a line nor an allocation each."""
        sound, path = self.folder / "sound.qcow2", self.folder / "damaged.qcow2"
        full_disk(sound, 8192 * MB)
        copy(sound, path)
        wrong = miscount(path)
        self.assertGreater(wrong, 1_000_000)

        code, document = check_json(path)
        self.assertEqual((code, document["leaks"]), (4, wrong))
        self.assertLessEqual(len(document["findings"]), 10_000)
        done = run("bash", "-c", 'ulimit -v 300000; exec "$@"', "bash", BIN / "imgfsck",
                   "--threads", 1, path)
        self.assertEqual(done.code, 4, done.err)
        self.assertLess(len(done.out.splitlines()), 100)

        allocations = []
        for image, status in ((sound, 0), (path, 4)):
            traced = run("valgrind", "--leak-check=no", "--undef-value-errors=no",
                         BIN / "imgfsck", "--threads", 1, image, timeout=280)
            self.assertEqual(traced.code, status, traced.err)
            allocations.append(int(re.search(r"total heap usage: ([\d,]+) allocs", traced.err)
                                   .group(1).replace(",", "")))
        self.assertLess(allocations[1] - allocations[0], wrong // 4, allocations)


if __name__ == "__main__":
    main()
