#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every repair pass of every format, as a real process in which a system call fails or which is killed
in one: an image that this pass mends, some calls of its repair (all of them in a long run). Afterwards
the image is the old or the new one, or a check answers 8 and --recover makes it one of the two. A
pass that no image here makes run fails the test."""
import json
import pathlib
import re
import struct

import fault_calls
from imglib import fixtures_cow
from imglib.fixtures import Bases, all_fixtures
from imglib.programs import SANITIZED, copy, digest, imgfsck
from imglib.testing import ImageTest, main, sample

HERE = pathlib.Path(__file__).resolve().parent
FORMATS = {"qcow2": ("qcow2", "incidents"), "qcow1": ("qcow",), "vhd": ("vhd",), "cow": ("cow",)}
READS = ("pread64", "read", "openat", "fstat", "fcntl", "lseek", "newfstatat")


def passes():
    """[(folder of repair/, name of the pass, its sentence)], from their declarations."""
    declared = re.compile(r'\{\s*"([a-z0-9-]+)",\s*\d+,\s*((?:"[^"]*"\s*)+),')
    found = []
    for source in sorted((HERE.parent / "repair").glob("*/*.cc")):
        for name, sentence in declared.findall(source.read_text()):
            found.append((source.parent.name, name, "".join(re.findall(r'"([^"]*)"', sentence))))
    return found


def mended_by(folder, sentence):
    """Fixtures whose repair is known to say that."""
    return [f"{kind}/{file.parent.name}" for kind in FORMATS[folder]
            for file in sorted((HERE / "fixtures" / kind).glob("*/expect.repair"))
            if f"done: {sentence}\n" in file.read_text()]


def tapdisk(path, flags=0, order="<"):
    """A qcow image as Xen's driver makes it: top table not behind the header, and byte-swapped."""
    data = bytearray(16384)
    data[:48] = struct.pack(">4sIQIIQBBHIQ", b"QFI\xfb", 1, 0, 0, 0, 4 << 20, 12, 9, 0, 0, 4096)
    data[48:64] = struct.pack(">4sIII", b"XEN\xfb", 0, 0, flags)
    struct.pack_into(f"{order}Q", data, 4096, 8192)
    struct.pack_into(">Q", data, 8192 + 8 * 3, 12288)
    data[12288:] = b"\x55" * 4096
    path.write_bytes(data)


def tapdisk_swapped(path):
    """… with the table in the format's order again, which a flag says, and a checksum that is wrong."""
    tapdisk(path, 2, ">")


def table_lost(path):
    """A qcow image with eight mapping tables, one behind the other, the sixth out of reach."""
    data = bytearray(4096)
    data[:48] = struct.pack(">4sIQIIQBBHIQ", b"QFI\xfb", 1, 0, 0, 0, 2 << 20, 12, 6, 0, 0, 48)
    for slot in range(8):
        table, place = bytearray(512), len(data)
        struct.pack_into(">Q", table, 8 * (7 * slot % 64), place + 4096)
        if slot != 5:
            struct.pack_into(">Q", data, 48 + 8 * slot, place)
        data += table + bytes(4096 - 512) + b"data" * 1024
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def untouched(path):
    pass


# What no fixture's repair does by itself: (fixture to begin with, what is done to it, options).
DIRECTORY = ("--orphans", "dir:aside")
BASE = ("--relink", fixtures_cow.BASE)
OTHERS = {
    ("cow", "recreate"): ("cow/empty-file", untouched, BASE),
    ("cow", "relink"): ("cow/backing-touched", untouched, BASE),
    ("cow", "orphans"): ("cow/data-unmapped", untouched, DIRECTORY),
    ("cow", "length"): ("cow/trailing-data", untouched, ("--fix", "cow-trailing-data")),
    ("qcow1", "xen-order"): ("qcow/waste", tapdisk, ()),
    ("qcow1", "xen-checksum"): ("qcow/waste", tapdisk_swapped, ()),
    ("qcow1", "length"): ("qcow/padding", cut, ("--fix", "qcow-cluster-short")),
    ("qcow1", "relink"): ("qcow/waste", table_lost, ()),
    ("qcow1", "orphans"): ("qcow/waste", untouched, DIRECTORY),
    ("qcow1", "rewrite"): ("qcow/waste", untouched, ("--fix", "qcow-waste", "--output", "out:aside")),
}


class FaultPasses(ImageTest):
    on_disk = False
    traced, calls = fault_calls.FaultCalls.traced, fault_calls.FaultCalls.calls

    def prepare(self, fixture, change, options):
        """Repairs it once to know what it says and what comes of it."""
        self.home = self._root / "sick"
        self.home.mkdir(exist_ok=True)
        for file in self.home.iterdir():
            file.unlink()
        fixture.build(self.home)
        change(self.home / fixture.file)
        self.options = [*fixture.options, *fixture.repair, *options]
        path = self.restore(fixture)
        old = digest(path)
        done = self.traced(self.words(path, "--json"))
        self.assertIn(done.code, (0, 1, 4), done.err)
        self.said = json.loads(done.out)["repair"]["done"]
        self.legal = {old, digest(path)}
        # Files, and a folder of them, that are made beside the image.
        self.aside = self.made_aside()
        return path

    def made_aside(self):
        aside = self.folder / "aside"
        files = sorted(aside.iterdir()) if aside.is_dir() else [aside] if aside.exists() else []
        return {file.name: digest(file) for file in files}

    def words(self, path, *more):
        # Names are given from the image's folder, where the program runs.
        def named(word):
            if (self.home / word).is_file():
                return str(self.folder / word)
            return word.replace("dir:", f"dir:{self.folder}/").replace("out:", f"{self.folder}/")
        return [*more, "--repair=all", *map(named, map(str, self.options)), path]

    def restore(self, fixture):
        self.fresh_folder()
        for file in self.home.iterdir():
            copy(file, self.folder / file.name)
        return self.folder / fixture.file

    def faults(self, path):
        cases = []
        for call, number in self.calls(path):
            if SANITIZED and call == "write":
                continue
            cases += [(call, number, f"error={error}") for error in fault_calls.ERRORS[call]]
            if call in fault_calls.CHANGES:
                cases.append((call, number, "signal=KILL"))
        reads = [case for case in cases if case[0] in READS]
        return sample(reads, 1) + sample([case for case in cases if case[0] not in READS], 1)

    def one_of_the_two(self, path):
        check = imgfsck(path)
        if check.code == 8 and "interrupted" in check.err:
            recovered = imgfsck("--recover", path)
            self.assertEqual(recovered.code, 0, recovered.err)
        self.assertIn(digest(path), self.legal)
        if "--output" in self.options:
            self.assertIn(self.made_aside(), ({}, self.aside))

    def try_faults(self, fixture, path):
        stopped = 0
        for call, number, what in self.faults(path):
            path = self.restore(fixture)
            done = self.traced(self.words(path), "-e", f"inject={call}:{what}:when={number}")
            with self.subTest(image=fixture.name, call=call, number=number, what=what, err=done.err):
                killed = done.code in (-9, 137)
                self.assertTrue(killed if "KILL" in what else done.code in (0, 1, 4, 8), done.code)
                stopped += killed or done.code == 8
                self.one_of_the_two(path)
        return stopped

    def test_every_pass(self):
        fixtures = all_fixtures(Bases(self._root))
        wanted = {(folder, name): sentence for folder, name, sentence in passes()}
        self.assertEqual({folder for folder, _ in wanted}, set(FORMATS))
        self.assertGreater(len(wanted), 50)
        tried, stopped = set(), 0
        for (folder, name), sentence in wanted.items():
            if (folder, name) in tried:
                continue
            start, change, options = OTHERS.get((folder, name)) or \
                (next(iter(mended_by(folder, sentence)), None), untouched, ())
            with self.subTest(folder=folder, name=name):
                self.assertIsNotNone(start, "no image makes this pass run")
                path = self.prepare(fixtures[start], change, options)
                if options == DIRECTORY:  # changes nothing in the image
                    self.assertTrue(self.aside)
                    tried.add((folder, name))
                else:
                    self.assertIn(sentence, self.said)
                tried |= {key for key, said in wanted.items() if key[0] == folder and said in self.said}
                stopped += self.try_faults(fixtures[start], path)
        self.assertEqual(tried, set(wanted))
        self.assertGreater(stopped, len(wanted) // 4)


if __name__ == "__main__":
    main()
