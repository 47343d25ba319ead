#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""COW images against uml_mkcow and uml_moo: what uml_mkcow makes is sound, what we write merges
right, and a commit leaves what uml_moo accepts."""
import os
import random
import struct

from imglib.programs import BIN, check_json, file_state, imgdump, imgfsck, run
from imglib.testing import ImageTest, codes, main, summary

SIZES = (2560100, 1000 * 512, 3905 * 512)


def imgio(*words):
    done = run(BIN / "imgio", *words)
    if done.code != 0:
        raise AssertionError(f"{done.command}: exit {done.code}\n{done.out[-2000:]}{done.err[-2000:]}")
    return done.out


class Cow(ImageTest):
    def make(self, size, ours=False):
        """(overlay, base, the disk's bytes): by uml_mkcow, or by us."""
        base, path = self.folder / "base.img", self.folder / "disk.cow"
        base.write_bytes(random.Random(size).randbytes(size))
        os.utime(base, (1600000000, 1600000000))
        if ours:
            imgio("create", "-f", "cow", "-o", f"backing_file={base},backing_fmt=raw", path)
        else:
            run("uml_mkcow", path, base, check=True)
        return path, base, bytearray(base.read_bytes())

    def write(self, path, disk, seed):
        rng = random.Random(seed)
        piece = self.folder / "piece"
        for _ in range(10):
            at = rng.randrange(len(disk) - 1)
            data = rng.randbytes(min(rng.randrange(1, 20000), len(disk) - at))
            piece.write_bytes(data)
            imgio("write", path, at, "--from", piece)
            disk[at:at + len(data)] = data

    def merged(self, path):
        out = self.folder / "merged.img"
        out.unlink(missing_ok=True)
        run("uml_moo", path, out, check=True)
        return out.read_bytes()

    def ours(self, path):
        raw = self.folder / "ours.raw"
        imgio("convert", "--force", path, raw)
        return raw.read_bytes()

    def test_both_makers_headers_are_alike(self):
        for size in SIZES:
            with self.subTest(size=size):
                self.fresh_folder()
                theirs, _, _ = self.make(size)
                first = theirs.read_bytes()
                theirs.unlink()
                ours, _, _ = self.make(size, ours=True)
                self.assertEqual(ours.read_bytes(), first)

    def test_our_writes_merge_right(self):
        for size in SIZES:
            for ours in (False, True):
                with self.subTest(size=size, ours=ours):
                    self.fresh_folder()
                    path, base, disk = self.make(size, ours)
                    self.write(path, disk, size)
                    whole = size // 512 * 512  # uml_moo drops the rest
                    self.assertTrue(self.merged(path)[:whole] == disk[:whole])
                    self.assertTrue(self.ours(path) == disk)
                    before = file_state(path)
                    code, document = check_json(path, "--deep", "--chain")
                    self.assertEqual(code, 0, summary(document))
                    self.assertLessEqual(codes(document),
                                         {"cow-size-unaligned", "cow-data-redundant"})
                    self.assertEqual(document["format"], "cow")
                    self.assertEqual(file_state(path), before)
                    self.assertEqual(base.stat().st_mtime, 1600000000)

    def test_a_commit_leaves_what_uml_moo_accepts(self):
        path, base, disk = self.make(SIZES[0])
        self.write(path, disk, 5)
        imgio("commit", path)
        self.assertTrue(base.read_bytes() == disk)
        self.assertTrue(self.ours(path) == disk)
        self.assertEqual(self.merged(path), bytes(disk[:len(disk) // 512 * 512]))
        code, document = check_json(path, "--deep", "--chain")
        self.assertEqual(code, 0, summary(document))
        self.assertEqual(document["allocated-clusters"], 0)

    def test_a_rebase_restamps(self):
        path, base, disk = self.make(SIZES[1])
        self.write(path, disk, 6)
        other = self.folder / "other.img"
        other.write_bytes(random.Random(99).randbytes(len(disk)))
        imgio("rebase", "-b", other, path)
        self.assertTrue(self.ours(path) == disk)
        self.assertTrue(self.merged(path) == disk)

    def test_uml_moos_own_merge_is_noticed(self):
        path, _, disk = self.make(SIZES[1])
        self.write(path, disk, 7)
        run("uml_moo", "-d", path, check=True)
        _, document = check_json(path, "--deep", "--chain")
        self.assertIn("cow-backing-mtime", codes(document))
        self.assertIn("cow-backing-newer-merged", codes(document))
        done = imgfsck("--deep", "--chain", "--repair", "--fix=cow-backing-newer-merged", path)
        self.assertIn(done.code, (0, 1), done.out + done.err)
        self.assertTrue(self.ours(path) == disk)
        self.assertTrue(self.merged(path) == disk)

    def test_an_older_header_under_a_newer_one(self):
        # Version 2, packed, by hand: header 4120, bitmap behind it, data on the next sector.
        base, path = self.folder / "base.img", self.folder / "old.cow"
        base.write_bytes(random.Random(1).randbytes(1000 * 512))
        os.utime(base, (1600000000, 1600000000))
        header = struct.pack(">II4096sIQI", 0x4F4F4F4D, 2, os.fsencode(base), 1600000000,
                             1000 * 512, 512)
        bitmap = bytearray(125)
        bitmap[700 // 8] |= 1 << (700 % 8)
        data = bytearray(1000 * 512)
        data[700 * 512:701 * 512] = b"\x77" * 512
        path.write_bytes((header + bitmap).ljust(4608, b"\0") + data)
        disk = bytearray(base.read_bytes())
        disk[700 * 512:701 * 512] = b"\x77" * 512
        self.assertTrue(self.merged(path) == disk)
        self.assertTrue(self.ours(path) == disk)
        newer = struct.pack(">IIIQIII4096s", 0x4F4F4F4D, 3, 1600000000, 1000 * 512, 512, 4096, 0,
                            os.fsencode(base))
        with open(path, "r+b") as file:
            file.write(newer)
        self.assertIn("cow-header-upgraded-in-place", codes(check_json(path)[1]))
        done = imgfsck("--repair=all", path)
        self.assertIn(done.code, (0, 1), done.out + done.err)
        self.assertTrue(self.ours(path) == disk)

    def test_the_dump_shows_every_table(self):
        path, _, disk = self.make(SIZES[1])
        self.write(path, disk, 8)
        page = imgdump(path).out
        for word in ("uml-v3", "backing_file", "sectorsize", "alignment"):
            self.assertIn(word, page)
        kinds = imgdump("--query", "select distinct kind from region order by 1", "--mode", "csv",
                        path).out
        for kind in ("cow-bitmap", "data", "header"):
            self.assertIn(kind, kinds)
        for structure in ("header", "bitmap"):
            self.assertEqual(imgdump("--hex", structure, path).code, 0)


if __name__ == "__main__":
    main()
