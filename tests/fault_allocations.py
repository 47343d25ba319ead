#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Check, repair, rollback and recovery of an image of every format, with the n-th `new` failing, or
the n-th malloc() of the C libraries (SQLite, libcrypto, zlib): every one in a long run, else a seeded
sample. The answer is 8 with a sentence, or the one that would have been given; never a signal. The
image is the old one, the new one, or --recover makes it one of the two."""
import os
import shutil
import struct
import unittest

from imglib.fixtures import Bases, all_fixtures
from imglib.programs import BIN, SANITIZED, copy, digest, imgfsck, run
from imglib.testing import ImageTest, main, sample

KINDS = {"new": 0, "malloc": 1}
HOOK = BIN.parent / "tests" / "libfailing_new.so"
DAMAGED = ("qcow2/refcount-block-zeroed-16", "qcow/data-crosslink", "vhd/copy-checksum",
           "cow/data-beyond-eof")


@unittest.skipIf(SANITIZED, "the sanitizers allocate by themselves")
class FaultAllocations(ImageTest):
    on_disk = False

    def setUp(self):
        super().setUp()
        self.state = self._root / "allocations"
        self.home = self._root / "sick"
        fixtures = {f"{f.format}/{f.name}": f for f in all_fixtures(Bases(self._root)).values()}
        self.fixtures = [fixtures[name] for name in DAMAGED]

    def traced(self, kind, failing, *words):
        """(what the program answered, how many allocations of that kind it made)"""
        self.state.write_bytes(struct.pack("=QQQ", failing, 0, KINDS[kind]))
        done = run(BIN / "imgfsck", "--threads", "1", *words,
                   env={"LD_PRELOAD": str(HOOK), "IMGFSCK_ALLOCATIONS": str(self.state)})
        return done, struct.unpack("=QQQ", self.state.read_bytes())[1]

    def prepare(self, fixture):
        """The damaged image, what it is called, and as it will be when it is repaired."""
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir()
        fixture.build(self.home)
        path = self.folder / fixture.file
        self.restore(path)
        self.old = digest(path)
        self.assertIn(imgfsck("--repair=all", path).code, (1, 4))
        self.new = digest(path)
        self.assertNotEqual(self.old, self.new)
        self.mended = self._root / "mended"
        shutil.rmtree(self.mended, ignore_errors=True)
        shutil.copytree(self.folder, self.mended)
        return path

    def restore(self, path, source=None):
        self.fresh_folder()
        for file in (source or self.home).iterdir():
            copy(file, self.folder / file.name)

    def loop(self, path, source, words):
        """Every allocation of that command failing in turn; how often it answered 8."""
        return sum(self.loop_of(kind, path, source, words) for kind in KINDS)

    def loop_of(self, kind, path, source, words):
        self.restore(path, source)
        good, count = self.traced(kind, 0, *words)
        self.assertIn(good.code, (0, 1, 4), good.err)
        self.assertGreater(count, 100)
        refused = 0
        for failing in sample(range(1, count + 1), 12):
            self.restore(path, source)
            done, _ = self.traced(kind, failing, *words)
            with self.subTest(kind=kind, words=words, failing=failing, of=count, err=done.err):
                self.assertIn(done.code, (good.code, 8))
                if done.code == 8:
                    refused += 1
                    self.assertIn("memory", done.err)
                else:
                    self.assertEqual(done.out, good.out)
                self.assert_old_or_new(path)
        return refused

    def assert_old_or_new(self, path):
        journal = path.with_name(path.name + ".imgfsck-journal")
        if os.path.lexists(journal):
            self.assertEqual(imgfsck(path).code, 8)
            done = imgfsck("--recover", path)
            self.assertEqual(done.code, 0, done.err)
        self.assertIn(digest(path), (self.old, self.new))
        self.assertFalse(os.path.lexists(journal))

    def test_all(self):
        for fixture in self.fixtures:
            path = self.prepare(fixture)
            undo = path.with_name(path.name + ".imgfsck-undo")
            refused = 0
            for source, words in ((self.home, [path]), (self.home, ["--deep", "--json", path]),
                                  (self.home, ["--repair=all", path]),
                                  (self.mended, ["--rollback", undo, path])):
                refused += self.loop(path, source, words)
            self.assertGreater(refused, 0)

    def test_recover(self):
        for fixture in self.fixtures:
            path = self.prepare(fixture)
            self.restore(path)
            # As a machine leaves it that stops at the first write into the image.
            done = run("strace", "-f", "-qq", "-o", "/dev/null", "-P", path, "-e",
                       "inject=pwrite64:signal=KILL:when=1", BIN / "imgfsck", "--repair=all", path)
            self.assertIn(done.code, (-9, 137))
            broken = self._root / "broken"
            shutil.rmtree(broken, ignore_errors=True)
            shutil.copytree(self.folder, broken)
            self.assertGreater(self.loop(path, broken, ["--recover", path]), 0)


if __name__ == "__main__":
    main()
