#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""COW images against uml_mkcow and uml_moo: what uml_mkcow makes is sound, what we write merges
right, and a commit leaves what uml_moo accepts."""
import contextlib
import json
import os
import random
import sqlite3
import struct

from imglib.cow import LAYOUTS, ORDERS, Cow as Image
from imglib.programs import BIN, check_json, file_state, imgdump, imgfsck, imgio, run
from imglib.testing import ImageTest, codes, main, summary

STAMP = 1600000000
SIZES = (2560100, 1000 * 512, 3905 * 512)


class CowTest(ImageTest):
    def merged(self, path):
        out = self.folder / "merged.img"
        out.unlink(missing_ok=True)
        run("uml_moo", path, out, check=True)
        return out.read_bytes()

    def ours(self, path):
        raw = self.folder / "ours.raw"
        imgio("convert", "--force", path, raw)
        return raw.read_bytes()

    def make(self, size, ours=False):
        """(overlay, base, the disk's bytes): by uml_mkcow, or by us."""
        base, path = self.folder / "base.img", self.folder / "disk.cow"
        base.write_bytes(random.Random(size).randbytes(size))
        os.utime(base, (STAMP, STAMP))
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


class Cow(CowTest):
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
                    self.assertEqual(base.stat().st_mtime, STAMP)

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
        os.utime(base, (STAMP, STAMP))
        header = struct.pack(">II4096sIQI", 0x4F4F4F4D, 2, os.fsencode(base), STAMP,
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
        newer = struct.pack(">IIIQIII4096s", 0x4F4F4F4D, 3, STAMP, 1000 * 512, 512, 4096, 0,
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


class Layouts(CowTest):
    """By hand, from the sheet alone: every layout and byte order."""

    def build(self, name, order="big", size=700 * 512, seed=3):
        base, path = self.folder / "base.img", self.folder / "disk.cow"
        base.write_bytes(random.Random(size).randbytes(size))
        os.utime(base, (STAMP, STAMP))
        image = Image(name, size, order).header(base, STAMP)
        image.fill(random.Random(f"{name} {seed}"), 40)
        image.save(path)
        return image, path, base

    def test_each_is_read_written_and_kept(self):
        for name, order in ORDERS:
            for size in (700 * 512, 3905 * 512, 9 * 512):
                with self.subTest(layout=name, order=order, size=size):
                    self.fresh_folder()
                    image, path, base = self.build(name, order, size)
                    disk = bytearray(image.read(base.read_bytes()))
                    self.assertTrue(self.ours(path) == disk)
                    head = path.read_bytes()[:image.layout.length]
                    self.write(path, disk[:512 * image.tracked], 1)
                    rng = random.Random(1)  # the same again, on our copy
                    for _ in range(10):
                        at = rng.randrange(512 * image.tracked - 1)
                        data = rng.randbytes(min(rng.randrange(1, 20000),
                                                 512 * image.tracked - at))
                        disk[at:at + len(data)] = data
                    self.assertTrue(path.read_bytes()[:image.layout.length] == head)
                    image.data[:] = path.read_bytes()
                    self.assertTrue(image.read(base.read_bytes()) == disk, "not by the sheet")
                    self.assertTrue(self.ours(path) == disk)
                    self.merges(name, order, image, path, disk)

    def merges(self, name, order, image, path, disk):
        """uml_moo reads the packed layouts, and invents bits where versions 1 and 2 have none."""
        read = {"uml-v1", "uml-v2", "uml-v3", "uml-v3-broken"}
        if name in read and order != "big" * (name == "uml-v1") and image.sectors == image.tracked \
                and image.sectors <= 8 * image.bitmap_length:
            self.assertTrue(self.merged(path) == disk, "uml_moo reads something else")

    def test_maps_and_tables_follow_the_marks(self):
        for name, order in ORDERS:
            with self.subTest(layout=name, order=order):
                self.fresh_folder()
                image, path, _ = self.build(name, order)
                marked = set()
                for row in json.loads(imgdump("--map", "--json", path).out):
                    if row["data"] and row["depth"] == 0:
                        self.assertEqual(row["offset"] - row["start"], image.place)
                        marked.update(range(row["start"] // 512,
                                            -(-(row["start"] + row["length"]) // 512)))
                self.assertEqual(sorted(marked), image.stored())
                database = self.folder / "db"
                run("sqlite3", database, stdin=imgdump("--sql", path).out.encode(), check=True)
                with contextlib.closing(sqlite3.connect(database)) as db:
                    total, = db.execute("select sum(length) from mapping where state = 'data'"
                                        ).fetchone()
                    self.assertEqual(total, 512 * len(image.stored()))
                    fields = dict(db.execute("select name, value from field"))
                    self.assertEqual(fields["size"], image.size)
                    self.assertEqual(fields["sectorsize"], 512)
                    links = db.execute("select kind, name from link").fetchall()
                    self.assertEqual(links, [("backing", str(self.folder / "base.img"))])
                document = json.loads(imgdump("--json", path).out)
                self.assertEqual(document["format"], "cow")

    def repair(self, path, *options, code=(0, 1)):
        before = path.read_bytes()
        done = imgfsck(*options, "--undo", path.with_name("undo"), path)
        self.assertIn(done.code, code, done.out + done.err)
        after = path.read_bytes()
        self.assertTrue(after != before, "nothing was written")
        self.assertEqual(imgfsck("--rollback", path.with_name("undo"), path).code, 0)
        self.assertTrue(path.read_bytes() == before)
        path.write_bytes(after)
        path.with_name("undo").unlink()

    def mended(self, path, code, *options):
        """By its code, on request only."""
        self.assertIn(code, codes(check_json(path, *options)[1]))
        self.repair(path, *options, "--repair", "--fix", code)
        self.assertNotIn(code, codes(check_json(path, *options)[1]))

    def test_a_touched_base_is_restamped_on_request(self):
        image, path, base = self.build("uml-v3")
        disk = image.read(base.read_bytes())
        os.utime(base, (STAMP + 100, STAMP + 100))
        self.assertNotEqual(run("uml_moo", path, self.folder / "out").code, 0)
        self.assertEqual(imgfsck("--repair=all", path).code, 0)  # a warning: nobody can tell
        self.assertIn("cow-backing-mtime", codes(check_json(path)[1]))
        self.mended(path, "cow-backing-mtime")
        self.assertTrue(self.merged(path) == disk)

    def test_a_relative_name_becomes_absolute_on_request(self):
        image, path, base = self.build("uml-v3")
        disk = image.read(base.read_bytes())
        image.data[32:32 + 4096] = b"base.img".ljust(4096, b"\0")
        image.save(path)
        self.mended(path, "cow-path-relative")
        self.assertTrue(self.merged(path) == disk)

    def test_a_lost_size_is_that_of_the_base(self):
        image, path, base = self.build("uml-v3")
        disk = image.read(base.read_bytes())
        image.put(12, 8, 0)
        image.save(path)
        self.mended(path, "cow-size-zero")
        self.assertTrue(self.merged(path) == disk)

    def test_marks_over_holes_are_taken_back_on_request(self):
        image, path, base = self.build("uml-v3", seed=5)
        disk = image.read(base.read_bytes())
        # Whole blocks of the host's file system, none of them written.
        free = [n for n in range(0, 690, 8) if not any(s // 8 == n // 8 for s in image.stored())]
        for sector in free:
            for n in range(sector, sector + 8):
                image.mark(n)
        image.save(path)
        options = ["--deep", "--chain"]
        self.assertTrue(self.ours(path) != disk)
        self.mended(path, "cow-data-hole-set", *options)
        self.assertTrue(self.ours(path) == disk)

    def test_equal_sectors_are_given_back_on_request(self):
        image, path, base = self.build("uml-v3")
        content = base.read_bytes()
        for sector in (600, 601, 650):
            image.store(sector, content[512 * sector:512 * sector + 512])
        image.save(path)
        disk = image.read(content)
        stored = len(image.stored())
        self.mended(path, "cow-data-redundant", "--deep", "--chain")
        image.data[:] = path.read_bytes()
        self.assertEqual(len(image.stored()), stored - 3)
        self.assertTrue(self.ours(path) == disk)

    def test_relink_names_the_base_that_moved(self):
        for name in ("uml-v3", "uml-v2", "qemu-x86-64"):
            with self.subTest(layout=name):
                self.fresh_folder()
                image, path, base = self.build(name)
                disk = image.read(base.read_bytes())
                moved = base.rename(self.folder / "moved.img")
                self.assertIn("cow-backing-missing", codes(check_json(path)[1]))
                self.assertEqual(imgfsck("--chain", path).code, 4)
                self.repair(path, "--repair", "--relink", moved)
                self.assertEqual(codes(check_json(path, "--chain")[1]) - {"cow-bitmap-rounding"},
                                 set())
                self.assertTrue(self.ours(path) == disk)
                # Another file is not taken.
                (self.folder / "other").write_bytes(b"x" * 512)
                before = path.read_bytes()
                imgfsck("--repair", "--relink", self.folder / "other", path)
                self.assertTrue(path.read_bytes() == before)

    def test_old_layouts_become_version_3(self):
        for name in LAYOUTS:
            code = {"uml-v1": "cow-bitmap-rounding", "uml-v2": "cow-bitmap-rounding",
                    "uml-v3-broken": "cow-v3-broken-layout"}.get(name, "cow-layout-foreign-abi")
            if name in ("uml-v3", "qemu-x86-64"):
                continue
            with self.subTest(layout=name):
                self.fresh_folder()
                image, path, base = self.build(name, "little" if "v1" in name else "big")
                disk = image.read(base.read_bytes())
                self.mended(path, code)
                self.assertTrue(self.merged(path) == disk)

    def test_two_headers_at_once(self):
        # Guest data of QEMU's layout completes a header of User-Mode Linux, length included.
        base, path = self.folder / "base.img", self.folder / "disk.cow"
        base.write_bytes(bytes(300 * 512))
        image = Image("qemu-x86-64", 300 * 512).header(base, STAMP)
        image.store(299, b"\1" * 512)
        image.put(4108, 8, 294 * 512)
        image.put(4116, 4, 512)
        image.save(path)
        self.assertIn("cow-layout-ambiguous", codes(check_json(path)[1]))
        self.assertNotEqual(run(BIN / "imgio", "read", path, 0, 512).code, 0)
        before = path.read_bytes()
        self.assertEqual(imgfsck("--repair", path).code, 4)  # a guess is not safe
        self.assertTrue(path.read_bytes() == before)
        self.repair(path, "--repair=all", code=(1, 4))
        self.assertNotIn("cow-layout-ambiguous", codes(check_json(path)[1]))
        self.assertTrue(self.ours(path) == image.read(base.read_bytes()), "the base tells which")

    def test_what_the_guest_does_not_see_goes_to_a_folder(self):
        image, path, base = self.build("uml-v3")
        pieces = list(image.contents())
        for sector in image.stored():
            image.mark(sector, False)
        image.data += b"behind the data"
        image.save(path)
        lost = self.folder / "lost"
        before = path.read_bytes()
        done = imgfsck("--deep", "--repair", "--orphans", f"dir:{lost}", path)
        self.assertIn(done.code, (4, 1), done.out + done.err)
        self.assertTrue(path.read_bytes() == before, "nothing of it may change the image")
        found = b"".join(file.read_bytes() for file in sorted(lost.iterdir()))
        for _, content in pieces:
            self.assertTrue(content in found, "not handed over")
        self.assertTrue(b"behind the data" in found)
        index = [file.read_text() for file in lost.iterdir() if file.name == "INDEX.tsv"]
        self.assertEqual(len(index), 1)
        self.assertIn("data without its mark", index[0])


if __name__ == "__main__":
    main()
