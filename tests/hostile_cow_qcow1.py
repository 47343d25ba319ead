#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""COW and qcow version 1 images that are cut, loop, overlap, or claim to be huge: every tool answers
in time and within bounded memory, by an exit status of the contract, and writes nothing."""
import os
import random
import struct

from bad_input import bounded
from imglib.cow import ORDERS, Cow
from imglib.programs import BIN, folder_state, qemu_img, run
from imglib.qcow1 import COMPRESSED, HEADER, Qcow1
from imglib.testing import ImageTest, main, sample

KB, MB = 1024, 1024 * 1024


class Hostile(ImageTest):
    def all_tools(self, path, form, codes=(0, 4, 8)):
        before = folder_state(self.folder)
        for words in (["imgfsck", "--deep"], ["imgfsck", "--deep", "--repair=all", "-n"],
                      ["imgdump"], ["imgdump", "--map"], ["imgio", "info"], ["imgio", "map"]):
            done = bounded(BIN / words[0], *words[1:], "-f" if words[0] == "imgio" else "--format",
                           form, path)
            self.assertIn(done.code, codes, f"{words}: {done.out[-500:]}{done.err[-500:]}")
            self.assertTrue((done.out + done.err).strip(), f"{words}: not a word")
        self.assertTrue(folder_state(self.folder) == before, "something was written")


class HostileCow(Hostile):
    def sound(self, name, order, size=700 * 512):
        base = self.folder / "base.img"
        base.write_bytes(bytes(size))
        return Cow(name, size, order).header(base, 1600000000).fill(random.Random(1), 30)

    def test_cut_anywhere(self):
        for name, order in ORDERS:
            image = self.sound(name, order)
            whole = bytes(image.data)
            edges = {0, 1, 4, 8, image.layout.length - 1, image.layout.length, image.bitmap + 1,
                     image.bitmap + image.bitmap_length, image.place, image.place + 1}
            lengths = sorted(edges | {len(whole) * n // 20 for n in range(20)})
            for length in sample(lengths, 6, 2):
                with self.subTest(layout=name, order=order, length=length):
                    path = self.folder / "cut.cow"
                    path.write_bytes(whole[:length])
                    self.all_tools(path, "cow")

    def test_every_field_at_its_limits(self):
        for name, order in ORDERS:
            image = self.sound(name, order)
            one, whole = image.layout, bytes(image.data)
            fields = [(0, 4), (one.version_at, 4), (one.mtime, 4), (one.size, 8),
                      (one.sectorsize, 4)] + [(at, 4) for at in (one.alignment, one.cow_format)
                                              if at]
            limits = [(at, size, value) for at, size in fields
                      for value in (0, 1, 511, 513, 65536, 1 << 8 * size - 1,
                                    (1 << 8 * size - 1) - 1, (1 << 8 * size) - 1)]
            for at, size, value in sample(limits, 10, 3):
                with self.subTest(layout=name, order=order, field=at, value=value):
                    image.data[:] = whole
                    image.put(at, size, value)
                    image.save(self.folder / "field.cow")
                    self.all_tools(self.folder / "field.cow", "cow")

    def test_huge_and_full_of_marks(self):
        # 8 GiB of disk, every sector marked, hardly a byte in the file.
        base = self.folder / "base.img"
        base.touch()
        os.truncate(base, 8 << 30)
        image = Cow("uml-v3", 0)
        image.size = 8 << 30
        image.data = bytearray(4128)
        image.header(base, 1600000000)
        path = self.folder / "huge.cow"
        with open(path, "wb") as file:
            file.write(image.data)
            file.seek(8192)
            file.write(b"\xff" * ((8 << 30) // 4096))
            file.truncate(8192 + 2 * MB + (8 << 30))
        for words in (["imgfsck"], ["imgdump"], ["imgio", "info"], ["imgio", "map"]):
            done = bounded(BIN / words[0], *words[1:], path)
            self.assertIn(done.code, (0, 4), done.err)
        done = bounded(BIN / "imgfsck", "--deep", path)
        self.assertIn(done.code, (0, 4), done.err)


class HostileQcow1(Hostile):
    def sound(self):
        path = self.folder / "sound.qcow"
        qemu_img("create", "-q", "-f", "qcow", path, 20 * MB)
        run("qemu-io", "-f", "qcow", *[word for n in range(20) for word in
                                       ("-c", f"write {'-c ' if n % 3 == 0 else ''}-P {n + 1} "
                                              f"{n * 700 % 4000 * 4 * KB} 4k")], path, check=True)
        return path

    def test_cut_anywhere(self):
        whole = self.sound().read_bytes()
        lengths = sorted({0, 1, 4, 8, 47, 48, 49, 55, 56, 88, 511, 512, 4095, 4096, 4097,
                          len(whole) - 1} | {len(whole) * n // 30 for n in range(30)})
        for length in sample(lengths, 24, 8):
            with self.subTest(length=length):
                path = self.folder / "cut.qcow"
                path.write_bytes(whole[:length])
                self.all_tools(path, "qcow")

    def test_every_field_at_its_limits(self):
        image = Qcow1(self.sound())
        limits = [(name, size, value) for name, (at, size) in HEADER.items()
                  for value in {0, 1, 9, 16, 48, 255, 1024, (1 << 8 * size - 1) - 1,
                                1 << 8 * size - 1, (1 << 8 * size) - 1} if value < 1 << 8 * size]
        for name, size, value in sample(limits, 24, 10):
            with self.subTest(field=name, value=value):
                image.out = bytearray(image.data)
                image.set(name, value)
                path = self.folder / "field.qcow"
                path.write_bytes(image.out)
                self.all_tools(path, "qcow")

    def test_loops_and_overlaps(self):
        image = Qcow1(self.sound())
        tables = image.tables()
        slot, table = tables[0]
        clusters = list(image.mapped())
        wounds = {
            "L1 names itself": [(image.l1 + 8 * n, image.l1) for n in range(image.slots)],
            "L1 names the header": [(image.l1 + 8 * n, 0) for n in range(image.slots)] +
                                   [(image.l1, 512)],
            "one table for all": [(image.l1 + 8 * n, table) for n in range(image.slots)],
            "a table of itself": [(table + 8 * n, table) for n in range(image.entries)],
            "a table of L1": [(table + 8 * n, image.l1 // 512 * 512 or 512)
                              for n in range(image.entries)],
            "one cluster for all": [(table + 8 * n, clusters[0].begin // 4096 * 4096)
                                    for n in range(image.entries)],
            "streams all over": [(table + 8 * n, COMPRESSED | 4000 << 51 | 48 + n)
                                 for n in range(image.entries)],
            "tables a sector apart": [(image.l1 + 8 * n, 4096 + 512 * n)
                                      for n in range(image.slots)],
            "everything behind the end": [(table + 8 * n, (1 << 40) + 4096 * n)
                                          for n in range(image.entries)],
        }
        for name, writes in wounds.items():
            with self.subTest(name):
                image.out = bytearray(image.data)
                for at, value in writes:
                    image.put(at, value)
                path = self.folder / "loop.qcow"
                path.write_bytes(image.out)
                self.all_tools(path, "qcow")

    def test_huge(self):
        # The largest table that QEMU takes, 2 GiB of holes, and one entry at each of its ends.
        path = self.folder / "huge.qcow"
        with open(path, "wb") as file:
            file.write(struct.pack(">4sIQIIQBBHIQ", b"QFI\xfb", 1, 0, 0, 0, 268435455 << 21, 12, 9,
                                   0, 0, 4096))
            end = 4096 + 8 * 268435455
            table = -(-end // 4096) * 4096
            for at in (4096, end - 8):
                file.seek(at)
                file.write(struct.pack(">Q", table))
            file.truncate(table + 4096)
        self.all_tools(path, "qcow")
        # The same claimed by a file of one sector.
        os.truncate(path, 512)
        self.all_tools(path, "qcow")


if __name__ == "__main__":
    main()
