#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""imgdump --diff against what qemu-img converts the two disks to, compared sector by sector: two
images, two overlays, snapshots of one image, other formats, damage and other sizes."""
import json
import os
import random
import struct

from imglib.make import Recipe
from imglib.programs import copy, folder_state, imgdump, qemu_img, qemu_io
from imglib.testing import ImageTest, main

SECTOR, CLUSTER, MB = 512, 65536, 1 << 20


def differences(old, new):
    """[(sector, change)] of two disks' bytes."""
    length = max(len(old), len(new))
    old, new = old.ljust(length, b"\0"), new.ljust(length, b"\0")
    found = []
    for at in range(0, length, SECTOR):
        a, b = old[at:at + SECTOR], new[at:at + SECTOR]
        if a != b:
            found.append((at, "written" if not any(a) else "changed" if any(b) else "erased"))
    return found


class Diff(ImageTest):
    def diff(self, *options, code=0):
        done = imgdump("--json", *options)
        self.assertEqual(done.code, code, done.err)
        return json.loads(done.out)

    def sectors(self, document):
        found = []
        for entry in document["differences"]:
            begin, length = entry["guest-offset"], entry["guest-length"]
            found += [(at, entry["change"]) for at in range(begin, begin + length, SECTOR)]
        for change in ("written", "changed", "erased", "unreadable"):
            total = sum(entry["guest-length"] for entry in document["differences"]
                        if entry["change"] == change)
            self.assertEqual(document[f"{change}-bytes"], total)
        return found

    def raw(self, path, *options):
        out = self.folder / "raw"
        qemu_img("convert", *options, "-O", "raw", path, out)
        return out.read_bytes()

    def pair(self):
        base, one, two = (self.folder / name for name in ("base", "one", "two"))
        qemu_img("create", "-q", "-f", "qcow2", base, "16M")
        qemu_io(base, ["write -P 1 0 4M", "write -P 2 8M 1M"])
        for path in (one, two):
            qemu_img("create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", path)
        qemu_io(one, ["write -P 7 1M 64k", "write -P 1 2M 64k"])
        rand = random.Random(8)
        commands = ["write -z 3M 128k", "write -P 9 8500k 3k"]
        commands += [f"write -P {rand.randrange(1, 255)} {rand.randrange(32000) * SECTOR}"
                     f" {SECTOR * rand.randrange(1, 5)}" for _ in range(20)]
        qemu_io(two, commands)
        return base, one, two

    def test_overlays_of_one_base(self):
        base, one, two = self.pair()
        before = folder_state(self.folder)
        for old, new in ((one, two), (two, one), (base, two), (base, one), (one, one)):
            found = self.sectors(self.diff("--diff", old, new))
            self.assertEqual(folder_state(self.folder), before)
            self.assertEqual(found, differences(self.raw(old), self.raw(new)))
            (self.folder / "raw").unlink()

    def test_snapshots_of_one_image(self):
        path = self.sound(Recipe("snapshots"))
        snapshots = json.loads(imgdump("--json", path).out)["snapshots"]
        names = [snapshot["id"] for snapshot in snapshots]
        views = [[]] + [["-l", f"snapshot.id={name}"] for name in names]
        disks = [self.raw(path, "-f", "qcow2", *view) for view in views]
        wanted = [[]] + [[name] for name in names]
        for i, old in enumerate(wanted):
            for j, new in enumerate(wanted):
                words = [f"--diff-snapshot={n}" for n in old] + [f"--snapshot={n}" for n in new]
                found = self.sectors(self.diff("--diff", path, *words, path))
                self.assertEqual(found, differences(disks[i], disks[j]), words)
        self.assertTrue(differences(disks[0], disks[1]))

    def test_other_formats_and_sizes(self):
        base = self.pair()[0]
        vhd, larger = self.folder / "vhd", self.folder / "larger"
        qemu_img("convert", "-O", "vpc", "-o", "force_size=on", base, vhd)
        self.assertEqual(self.diff("--diff", base, vhd)["differences"], [])
        qemu_img("create", "-q", "-f", "qcow2", larger, "20M")
        qemu_io(larger, ["write -P 5 18M 4k"])
        document = self.diff("--diff", base, larger)
        self.assertEqual((document["virtual-size-before"], document["virtual-size"]),
                         (16 * MB, 20 * MB))
        self.assertEqual(self.sectors(document), differences(self.raw(base), self.raw(larger)))
        compressed = self.folder / "compressed"
        qemu_img("convert", "-c", "-O", "qcow2", base, compressed)
        done = imgdump("--diff", base, compressed)
        self.assertEqual((done.code, done.out), (0, "the disks read the same\n"))

    def test_vast_disks_take_no_time(self):
        one, two = self.folder / "one", self.folder / "two"
        qemu_img("create", "-q", "-f", "qcow2", one, "40T")
        copy(one, two)
        qemu_io(two, ["write -P 5 39T 64k"])
        done = imgdump("--diff", one, two, timeout=20)
        self.assertEqual(done.out, "written     0x270000000000-0x27000000ffff (64 KiB)\n"
                                   "1 range, 64 KiB written\n")

    def test_what_cannot_be_read_is_said(self):
        one, two = self.folder / "one", self.folder / "two"
        qemu_img("create", "-q", "-f", "qcow2", one, "4M")
        qemu_io(one, ["write -P 3 0 2M"])
        copy(one, two)
        qemu_io(two, [f"write -P 4 {8 * CLUSTER} {CLUSTER}"])
        with open(two, "r+b") as file:
            file.seek(40)
            l1 = struct.unpack(">Q", file.read(8))[0]
            file.seek(l1)
            l2 = struct.unpack(">Q", file.read(8))[0] & ~(1 << 63)
            file.seek(l2 + 8 * 4)
            file.write(struct.pack(">Q", 1 << 63 | 512))
        document = self.diff("--diff", one, two)
        self.assertEqual(document["differences"], [
            {"guest-offset": 4 * CLUSTER, "guest-length": CLUSTER, "change": "unreadable"},
            {"guest-offset": 8 * CLUSTER, "guest-length": CLUSTER, "change": "changed"}])

    def test_errors(self):
        one = self.pair()[1]
        for words in (("--diff", one, "--map"), ("--diff-snapshot", "1"), ("--snapshot", "1")):
            self.assertEqual(imgdump(*words, one).code, 16, words)
        for words in (("--diff", self.folder / "gone", one), ("--diff", one, self.folder / "gone"),
                      ("--diff", one, "--snapshot", "none", one),
                      ("--diff", one, "--diff-snapshot", "none", one)):
            done = imgdump(*words)
            self.assertEqual((done.code, done.out), (8, ""), words)
        os.truncate(self.folder / "base", 100)
        self.assertEqual(imgdump("--diff", one, one).code, 8)


if __name__ == "__main__":
    main()
