#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""imgtriage --names on damaged images with file systems in them: which files it names, against what
the file system's own tools and The Sleuth Kit's programs say of the same blocks."""
import html
import json
import os
import pathlib
import random
import struct

from imglib.programs import BIN, folder_state, qemu_img, run
from imglib.testing import ImageTest, main

CLUSTER, BLOCK = 65536, 4096
WITHOUT = BIN.parent / "tests" / "without_names"
EVIL = "\x1b[31m<script>"


def big(path, offset):
    with open(path, "rb") as file:
        file.seek(offset)
        return struct.unpack(">Q", file.read(8))[0]


class Names(ImageTest):
    def ext4(self, raw, size="64M"):
        """A raw disk; the files that are in it."""
        tree = self.folder / "tree"
        (tree / "etc" / "deep").mkdir(parents=True)
        rand = random.Random(5)
        for name in ("alpha", "beta", "etc/passwd", "etc/deep/" + EVIL.replace("/", "")):
            (tree / name).write_bytes(rand.randbytes(3 * CLUSTER + 1000))
        run("truncate", "-s", size, raw, check=True)
        run("mkfs.ext4", "-q", "-b", BLOCK, "-d", tree, raw, check=True)

    def lose(self, raw, image, clusters):
        """The disk as a qcow2 whose mappings of these guest clusters point behind its end."""
        qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, image)
        l1 = big(image, 40)
        l2 = big(image, l1) & ~(1 << 63)
        with open(image, "r+b") as file:
            for cluster in clusters:
                self.assertNotEqual(big(image, l2 + 8 * cluster), 0)
                file.seek(l2 + 8 * cluster)
                file.write(struct.pack(">Q", 1 << 63 | 1 << 40 | cluster << 16))

    def names(self, image, *options):
        before = folder_state(image.parent)
        done = run(BIN / "imgtriage", "--names", "--json", "-", *options, image)
        self.assertEqual(done.code, 4, done.err)
        self.assertEqual(folder_state(image.parent), before)
        return json.loads(done.out)["names"]

    def blocks_of(self, raw, name):
        out = run("debugfs", "-R", f'blocks "{name}"', raw, check=True).out
        return [int(word) for word in out.split()]

    def test_what_debugfs_says_of_ext4(self):
        raw, image = self.folder / "raw", self.folder / "image"
        self.ext4(raw)
        place = {}
        for name in ("/alpha", "/beta", "/etc/passwd", f"/etc/deep/{EVIL}"):
            for number, block in enumerate(self.blocks_of(raw, name)):
                place[block] = (name, number * BLOCK)
        lost = sorted({block * BLOCK // CLUSTER for block in place})[1::2]
        self.lose(raw, image, lost)
        names = self.names(image)
        self.assertEqual([(v["type"], v["mapped"]) for v in names["volumes"]], [("ext4", True)])
        found = {}
        for hit in names["list"]:
            if hit["kind"] != "file" or hit["path"] not in {name for name, _ in place.values()}:
                continue
            for at in range(0, hit["guest-length"], BLOCK):
                found[(hit["guest-offset"] + at) // BLOCK] = (hit["path"], hit["file-offset"] + at)
        wanted = {block: owner for block, owner in place.items()
                  if block * BLOCK // CLUSTER in lost}
        self.assertTrue(wanted)
        self.assertEqual(found, wanted)
        done = run(BIN / "imgtriage", "--names", "-v", image)
        self.assertIn("concerns /", done.out)
        self.assertNotIn("\x1b", done.out)

    def test_a_partition_and_its_offset(self):
        raw, whole, image = (self.folder / name for name in ("raw", "whole", "image"))
        self.ext4(raw, "32M")
        with open(whole, "wb") as file:
            entry = struct.pack("<B3sB3sII", 0, b"\0" * 3, 0x83, b"\0" * 3, 2048, 65536)
            file.write(b"\0" * 446 + entry + b"\0" * 48 + b"\x55\xaa")
            file.seek(1 << 20)
            file.write(raw.read_bytes())
        block = self.blocks_of(raw, "/beta")[0]
        self.lose(whole, image, [(block * BLOCK + (1 << 20)) // CLUSTER])
        names = self.names(image)
        self.assertEqual([v["guest-offset"] for v in names["volumes"]], [1 << 20])
        hit = next(h for h in names["list"] if h.get("path") == "/beta")
        self.assertLessEqual(hit["guest-offset"], block * BLOCK + (1 << 20))

    def test_ntfs_and_fat_as_the_sleuth_kit_says(self):
        for kind, make in (("ntfs", ("mkfs.ntfs", "-q", "-F", "-f", "-s", "512")),
                           ("fat16", ("mkfs.vfat", "-F", "16"))):
            raw, image = self.folder / f"{kind}.raw", self.folder / f"{kind}.qcow2"
            run("truncate", "-s", "32M", raw, check=True)
            run(*make, raw, check=True)
            text = self.folder / "text"
            text.write_bytes(random.Random(7).randbytes(3 * CLUSTER))
            if kind == "ntfs":
                run("ntfscp", "-q", "-f", raw, text, "report.doc", check=True)
            else:
                run("mcopy", "-i", raw, text, "::report.doc", check=True)
            at = raw.read_bytes().index(text.read_bytes()[:512])
            self.lose(raw, image, [at // CLUSTER + 1])
            names = self.names(image)
            self.assertTrue(names["volumes"][0]["mapped"])
            hit = next(h for h in names["list"] if h.get("path", "").lower() == "/report.doc")
            start = (at // CLUSTER + 1) * CLUSTER
            self.assertEqual((hit["guest-offset"], hit["guest-length"], hit["file-offset"]),
                             (start, CLUSTER, start - at), kind)
            image.unlink()

    def test_what_is_not_mapped_says_so(self):
        raw, image = self.folder / "raw", self.folder / "image"
        raw.write_bytes(random.Random(3).randbytes(4 << 20))
        self.lose(raw, image, [3])
        names = self.names(image)
        self.assertEqual([(v["mapped"], v["trouble"]) for v in names["volumes"]],
                         [(False, "not mapped")])
        self.assertEqual(names["list"], [])

    def test_a_broken_file_system_costs_the_names_alone(self):
        raw, image = self.folder / "raw", self.folder / "image"
        self.ext4(raw)
        data = bytearray(raw.read_bytes())
        rand = random.Random(11)
        for round_ in range(6):
            for _ in range(400):
                data[rand.randrange(1024, 3 << 20)] = rand.randrange(256)
            damaged = self.folder / f"raw{round_}"
            damaged.write_bytes(data)
            self.lose(damaged, image, [0])
            self.names(image, "--max-time", "20")
            image.unlink()
            os.unlink(damaged)

    def all_say(self, why, image, other, *before):
        """Every program does all else that it is asked for."""
        def said(folder, program, *words, code=4):
            done = run(*before, (folder or BIN) / program, *words)
            self.assertEqual(done.code, code, done.err)
            return done.out
        folder = None if before else WITHOUT
        self.assertIn("no names: " + why, said(folder, "imgtriage", "--names", image))
        document = json.loads(said(folder, "imgtriage", "--names", "--json", "-", image))
        self.assertIn(why, document["names"]["trouble"])
        self.assertEqual(document["names"]["list"], [])
        for option in ("--report", "--dfxml"):
            self.assertIn(why, html.unescape(
                said(folder, "imgtriage", "--names", option, "-", image)))
        self.assertIn("no names of guest files: " + why, said(folder, "imgfsck", "--names", image))
        document = json.loads(said(folder, "imgfsck", "--names", "--json", image))
        self.assertIn(why, document["names"]["active"]["trouble"])
        self.assertIn("qcow2-l2-entry-past-eof", {f["code"] for f in document["findings"]})
        self.assertIn(why, said(folder, "imgdump", "--names", "--diff", other, image, code=0))

    def test_programs_without_the_library_say_so(self):
        raw, image, other = (self.folder / name for name in ("raw", "image", "other"))
        self.ext4(raw)
        qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, other)
        self.lose(raw, image, [self.blocks_of(raw, "/beta")[20] * BLOCK // CLUSTER])
        if WITHOUT.exists():  # not in builds with sanitizers
            self.all_say("this build is without The Sleuth Kit's library", image, other)
        names = [word for folder in ("/lib", "/usr/lib")
                 for path in pathlib.Path(folder).glob("*/libtsk.so.*") for word in ("-P", path)]
        self.assertTrue(names)
        self.all_say("The Sleuth Kit's library (libtsk.so", image, other, "env",
                     "ASAN_OPTIONS=detect_leaks=0", "strace", "-f", "-qq", "-o", "/dev/null", *names,
                     "-e", "inject=openat:error=ENOENT")

    def test_a_disk_whose_base_is_not_there(self):
        base, image = self.folder / "base", self.folder / "image"
        raw = self.folder / "raw"
        raw.write_bytes(b"x" * (4 << 20))
        self.lose(raw, image, [3])
        qemu_img("rebase", "-u", "-b", "gone", "-F", "qcow2", image)
        names = self.names(image)
        self.assertIn("not among the files examined", names["trouble"])
        self.assertFalse(base.exists())


if __name__ == "__main__":
    main()
