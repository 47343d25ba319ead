#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Very large VHDs, and small ones that claim to be: a fully allocated disk of 2040 GiB is checked
in 2 s of processor time and 64 MiB; a block table of any claimed size costs no memory."""
import os
import random
import subprocess

from imglib.programs import BIN, SANITIZED
from imglib.testing import ImageTest, main
from imglib.vhd import SECTOR, Vhd, Writer, round_up

MB, GB = 1 << 20, 1 << 30
BLOCK = 2 * MB
BLOCK_SECTORS = 1 + BLOCK // SECTOR
SECONDS, MEMORY = 2.0, 64 * MB


def run_measured(*words, timeout=250):
    """(exit status, text, seconds of processor time, bytes of peak memory)"""
    with open("/dev/null", "rb") as nothing:
        child = subprocess.Popen([str(word) for word in words], stdin=nothing,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    out = child.stdout.read()
    child.stdout.close()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    seconds = usage.ru_utime + usage.ru_stime
    return child.returncode, out.decode("utf-8", "replace"), seconds, usage.ru_maxrss << 10


class Large(ImageTest):
    def full_disk(self, order=None):
        """All blocks stored, as holes: nothing but the metadata takes room. order: of the blocks in
        the file. Made by another process: what is measured would inherit its peak of memory."""
        path = self.folder / "large.vhd"
        child = os.fork()
        if child == 0:
            try:
                self.make_full(path, 2040 * GB, order)
                os._exit(0)
            finally:
                os._exit(1)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        return path

    @staticmethod
    def make_full(path, size, order):
        blocks = size // BLOCK
        places = list(range(blocks))
        if order is not None:
            order.shuffle(places)
        empty = Writer("win", size, BLOCK, 7).footer(3)
        start = (1536 + round_up(4 * blocks, SECTOR)) // SECTOR
        table = b"".join((start + place * BLOCK_SECTORS).to_bytes(4, "big") for place in places)
        v = Writer("win", BLOCK, BLOCK, 7).sparse({}, [])
        v.set_header(entries=blocks)
        with open(path, "xb") as file:
            file.write(empty + v.data[SECTOR:1536] + table)
            file.truncate((start + blocks * BLOCK_SECTORS) * SECTOR)
            file.seek(0, os.SEEK_END)
            file.write(empty)

    def check(self, path, *options, seconds=SECONDS, memory=MEMORY):
        code, out, used, peak = run_measured(BIN / "imgfsck", *options, path)
        print(f"{self.id().split('.')[-1]}: {used:.2f} s, {peak >> 20} MiB", flush=True)
        if not SANITIZED:
            self.assertLess(used, seconds)
            self.assertLess(peak, memory)
        return code, out

    def test_full_disk_of_2040_gib(self):
        self.assertEqual(2040 * GB // BLOCK, 1044480)
        code, out = self.check(self.full_disk())
        self.assertEqual(code, 0, out)

    def test_in_random_order(self):
        code, out = self.check(self.full_disk(order=random.Random(1)))
        self.assertEqual(code, 0, out)

    def test_deep(self):
        code, out = self.check(self.full_disk(order=random.Random(2)), "--deep", seconds=30,
                               memory=2 * MEMORY)
        self.assertEqual(code, 0, out)

    def test_every_hundredth_entry_is_another_again(self):
        path = self.full_disk(order=random.Random(3))
        with open(path, "r+b") as file:
            for index in range(100, 1044480, 100):
                file.seek(1536 + 4 * (index - 1))
                entry = file.read(4)
                file.seek(1536 + 4 * index)
                file.write(entry)
        code, out = self.check(path, seconds=2 * SECONDS, memory=2 * MEMORY)
        self.assertEqual(code, 4, out)
        self.assertIn("vhd-bat-entry-duplicate", out)


class Claims(ImageTest):
    on_disk = False

    def test_tables_of_any_size(self):
        for entries in (1 << 16, (1 << 29) - 1, 0xFFFFFFFF):
            for size, tail in ((MB, 0), (2040 * GB, 64 * MB), ((1 << 63) - SECTOR, 0)):
                with self.subTest(entries=entries, size=size, tail=tail):
                    self.claim(entries, size, tail)

    def claim(self, entries, size, tail):
        self.fresh_folder()
        path = self.folder / "small.vhd"
        v = Writer("win", MB, BLOCK, 9).sparse({}, [])
        v.set_header(entries=entries)
        v.set_footer(current_size=size)
        footer = bytes(v.data[v.end:])
        with open(path, "xb") as file:
            file.write(v.data[:v.end])
            file.truncate(v.end + tail)
            file.seek(0, os.SEEK_END)
            file.write(footer)
        for words in ((BIN / "imgfsck", "--format", "vpc"),
                      (BIN / "imgfsck", "--format", "vpc", "--deep"),
                      (BIN / "imgfsck", "--format", "vpc", "--repair=all", "--dry-run"),
                      (BIN / "imgdump",), (BIN / "imgdump", "--map"), (BIN / "imgio", "info")):
            code, out, used, peak = run_measured(*words, path)
            self.assertIn(code, (0, 4, 8), f"{words}: {out[-2000:]}")
            if not SANITIZED:
                # A repair may hold what it rewrites: here all of the table that is in the file.
                repairs = "--repair=all" in words
                self.assertLess(peak, MEMORY + (2 * tail if repairs else 0), words)
                self.assertLess(used, 30 if repairs and tail else 5, words)


if __name__ == "__main__":
    main()
