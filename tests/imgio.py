#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""imgio against QEMU, both ways: what QEMU writes imgio reads, what imgio writes QEMU reads and calls
clean, over versions, cluster sizes, refcount widths, backing files, compression, extended L2 tables,
LUKS, external data files and bitmaps. With IMGFSCK_LONG=1 the whole matrix, else a seeded sample."""
import json
import os
import random
import sys
import unittest

from imglib import make
from imglib.programs import (BIN, LONG, SANITIZED, SECRET, imgio, luks_target, qemu_img, qemu_io, run,
                             secret_options, temp_dir)

KB, MB = 1024, 1024 * 1024


def password(folder):
    path = folder / "password"
    path.write_text(SECRET + "\n")
    return ["--password-file", path]


def qemu_raw(folder, path, luks=False, snapshot=None, name="qemu.raw"):
    """The disk as QEMU reads it."""
    raw = folder / name
    view = ["-l", f"snapshot.name={snapshot}"] if snapshot else []
    source = luks_target(path) if luks else ["-f", "qcow2", path]
    qemu_img("convert", *view, "-O", "raw", *source, raw, timeout=300)
    return raw.read_bytes()


def our_raw(folder, path, *options):
    raw = folder / "ours.raw"
    imgio("convert", "--force", *options, path, raw)
    return raw.read_bytes()


def clean(path, luks=False):
    target = luks_target(path) if luks else ["-f", "qcow2", path]
    done = run("qemu-img", "check", *target)
    if done.code != 0:
        raise AssertionError(f"{done.command}: exit {done.code}\n{done.out}{done.err}")


def qemu_bitmap(folder, path, name):
    """(offset, length) of the ranges that QEMU finds dirty in a bitmap, ascending, neighbours as one."""
    socket = folder / "nbd"
    # It goes to the background once it listens, and ends with its first client.
    run("qemu-nbd", "--fork", "-r", "-f", "qcow2", "-B", name, "-k", socket, path, check=True)
    target = (f"driver=nbd,server.type=unix,server.path={socket},"
              f"x-dirty-bitmap=qemu:dirty-bitmap:{name}")
    found = json.loads(qemu_img("map", "--output=json", "--image-opts", target))
    ranges = []
    for entry in found:
        if entry["data"]:  # this is how QEMU shows what is not dirty
            continue
        if ranges and sum(ranges[-1]) == entry["start"]:
            ranges[-1] = (ranges[-1][0], ranges[-1][1] + entry["length"])
        else:
            ranges.append((entry["start"], entry["length"]))
    return ranges


def our_bitmap(path, name):
    return [tuple(map(int, line.split())) for line in imgio("bitmap", "dump", path, name).splitlines()]


def recipes():
    for compat in ("v2", "v3"):
        for content in make.CONTENTS:
            for size in make.CLUSTER_SIZES:
                for bits in make.REFCOUNT_BITS:
                    recipe = make.Recipe(content, compat, size, bits)
                    if make.valid(recipe) and make.layout(recipe)[0] <= 64 * MB:
                        yield recipe


def sample(everything, count):
    everything = list(everything)
    if LONG:
        return everything
    chosen = random.Random(6).sample(everything, count)
    # Each content at least once.
    have = {recipe.content for recipe in chosen}
    return chosen + [next(r for r in everything if r.content == c)
                     for c in make.CONTENTS if c not in have]


class Reading(unittest.TestCase):
    def test_reads_what_qemu_wrote(self):
        for recipe in sample(recipes(), 2 if SANITIZED else 8):
            with self.subTest(recipe=recipe), temp_dir() as folder:
                path, luks = folder / "i.qcow2", recipe.content == "luks"
                make.make(path, recipe)
                key = password(folder) if luks else []
                self.assertEqual(our_raw(folder, path, *key), qemu_raw(folder, path, luks))
                for snapshot in json.loads(imgio("snapshot", "list", "--json", *key, path)):
                    name = snapshot["name"]
                    self.assertEqual(our_raw(folder, path, *key, "--snapshot", name),
                                     qemu_raw(folder, path, luks, name))
                if not luks:
                    ours = json.loads(imgio("map", "--json", path))
                    theirs = json.loads(qemu_img("map", "--output=json", "-f", "qcow2", path))
                    # QEMU also looks for holes in the files below.
                    if recipe.content not in ("backing", "data-file", "data-file-raw"):
                        self.assertEqual(ours, theirs)

    def test_reads_legacy_aes(self):
        with temp_dir() as folder:
            path = folder / "i.qcow2"
            qemu_img("create", "-q", "-f", "qcow2", *secret_options(), "-o",
                     "encrypt.format=aes,encrypt.key-secret=key", path, "4M")
            target = secret_options() + ["--image-opts", "driver=qcow2,encrypt.format=aes,"
                                         f"encrypt.key-secret=key,file.filename={path}"]
            qemu_io(path, ["write -P 0x61 70000 300000"], target)
            raw = our_raw(folder, path, *password(folder))
            self.assertEqual(raw[70000:370000], b"a" * 300000)
            imgio("write", path, 100, "--pattern", "0x62", "--length", 5000, *password(folder))
            qemu_io(path, ["read -P 0x62 100 5000", "read -P 0x61 70000 300000"], target)

    def test_bitmaps_of_qemu(self):
        with temp_dir() as folder:
            path = folder / "i.qcow2"
            qemu_img("create", "-q", "-f", "qcow2", path, "8M")
            qemu_img("bitmap", "--add", "-g", "64k", path, "one")
            qemu_img("bitmap", "--add", "--disable", "-g", "4k", path, "off")
            qemu_io(path, ["write 0 1", "write 192k 4k", "write 640k 64k"])
            self.assertEqual(imgio("bitmap", "dump", path, "one"),
                             "0 65536\n196608 65536\n655360 65536\n")
            self.assertEqual(imgio("bitmap", "dump", path, "off"), "")
            imgio("write", path, "1M", "--pattern", 1, "--length", 10)
            imgio("discard", path, "2M", "128K")
            self.assertEqual(imgio("bitmap", "dump", path, "one"),
                             "0 65536\n196608 65536\n655360 65536\n1048576 65536\n2097152 131072\n")
            qemu_img("bitmap", "--merge", "one", path, "off")
            self.assertEqual(imgio("bitmap", "dump", path, "off").split("\n")[-2], "2097152 131072")
            imgio("bitmap", "add", "-g", "32k", path, "three")
            imgio("bitmap", "merge", path, "three", "one")
            imgio("bitmap", "clear", path, "one")
            imgio("bitmap", "enable", path, "off")
            imgio("bitmap", "remove", path, "one")
            info = json.loads(qemu_img("info", "--output=json", path))
            found = info["format-specific"]["data"]["bitmaps"]
            self.assertEqual({b["name"]: (b["granularity"], b["flags"]) for b in found},
                             {"off": (4096, ["auto"]), "three": (32768, ["auto"])})
            clean(path)


def write_recipes():
    for compat in ("v2", "v3"):
        for bits in make.REFCOUNT_BITS if compat == "v3" else [16]:
            for size in (512, 1024, 4096, 16 * KB, 64 * KB, 2 * MB):
                for content in ("plain", "zlib", "zstd", "extended-l2", "data-file",
                                "data-file-raw", "luks", "bitmaps", "backing", "lazy"):
                    if compat == "v2" and content not in ("plain", "zlib", "luks", "backing"):
                        continue
                    if content == "extended-l2" and size < 16 * KB:
                        continue
                    yield make.Recipe(content, compat, size, bits)


class Session:
    """An image made and written by imgio, and beside it a plain file with what it should read."""

    def __init__(self, folder, recipe, seed):
        self.folder, self.recipe = folder, recipe
        self.random = random.Random(f"{seed} {recipe}")
        self.path = folder / "i.qcow2"
        self.size = 3 * MB + 512 * 7 if recipe.cluster_size >= 4096 else 700 * KB + 512
        self.disk = bytearray(self.size)
        self.dirty = set()  # units of 64 KiB
        self.luks = recipe.content == "luks"
        self.key = password(folder) if self.luks else []

    def create(self):
        recipe, options = self.recipe, []
        options += [f"cluster_size={recipe.cluster_size}", f"compat={recipe.compat}"]
        if recipe.compat == "v3":
            options.append(f"refcount_bits={recipe.refcount_bits}")
        extra = {"zstd": "compression_type=zstd", "extended-l2": "extended_l2=on",
                 "lazy": "lazy_refcounts=on", "luks": "encrypt.format=luks",
                 "data-file": f"data_file={self.path}.data",
                 "data-file-raw": f"data_file={self.path}.data,data_file_raw=on"}
        if recipe.content in extra:
            options.append(extra[recipe.content])
        words = []
        if recipe.content == "backing":
            base = self.folder / "base.raw"
            content = self.random.randbytes(self.size - 3 * KB)
            base.write_bytes(content)
            self.disk[:len(content)] = content
            words = ["-b", "base.raw", "-F", "raw"]
        imgio("create", "-f", "qcow2", "-o", ",".join(options), *words, *self.key, self.path,
              self.size)
        if recipe.content == "bitmaps":
            imgio("bitmap", "add", "-g", "64k", self.path, "one")

    def range(self, unit=1):
        length = self.random.choice([1, 511, 512, 4096, 65536, 300000])
        offset = self.random.randrange(self.size) // unit * unit
        return offset, min(length, self.size - offset)

    def mark(self, offset, length):
        if length:
            self.dirty.update(range(offset // 65536, -(-(offset + length) // 65536)))

    def dirty_ranges(self):
        ranges = []
        for unit in sorted(self.dirty):
            start, length = unit * 65536, min(65536, self.size - unit * 65536)
            if ranges and sum(ranges[-1]) == start:
                ranges[-1] = (ranges[-1][0], ranges[-1][1] + length)
            else:
                ranges.append((start, length))
        return ranges

    def write(self):
        offset, length = self.range()
        self.mark(offset, length)
        data = self.random.randbytes(length)
        source = self.folder / "data"
        source.write_bytes(data)
        imgio("write", "-q", self.path, offset, "--from", source, *self.key)
        self.disk[offset:offset + length] = data

    def compress(self):
        unit = self.recipe.cluster_size
        offset, length = self.range(unit)
        length = min((length + unit - 1) // unit * unit, self.size - offset)
        self.mark(offset, length)
        imgio("write", "-q", "-c", self.path, offset, "--pattern", 7, "--length", length)
        self.disk[offset:offset + length] = bytes([7]) * length

    def zero(self):
        offset, length = self.range()
        self.mark(offset, length)
        imgio("zero", self.path, offset, length, *self.key)
        self.disk[offset:offset + length] = bytes(length)

    def discard(self):
        unit = self.recipe.cluster_size
        offset, length = self.range(unit)
        length = length // unit * unit
        self.mark(offset, length)
        imgio("discard", self.path, offset, length, *self.key)
        if not (self.recipe.compat == "v2" and self.recipe.content == "backing"):
            self.disk[offset:offset + length] = bytes(length)

    def qemu_write(self):
        offset, length = self.range(512)
        length = max(length // 512 * 512, 512)
        self.mark(offset, length)
        target = luks_target(self.path) if self.luks else ()
        qemu_io(self.path, [f"write -P 0x77 {offset} {length}"], target)
        self.disk[offset:offset + length] = b"\x77" * length

    def step(self):
        steps = [self.write, self.write, self.zero, self.discard, self.qemu_write]
        if self.recipe.content in ("plain", "zlib", "zstd", "extended-l2", "bitmaps", "lazy",
                                   "backing"):
            steps.append(self.compress)
        self.random.choice(steps)()


class Writing(unittest.TestCase):
    def test_qemu_reads_what_we_wrote(self):
        for recipe in sample_writes():
            with self.subTest(recipe=recipe), temp_dir() as folder:
                session = Session(folder, recipe, 3)
                session.create()
                snapshots = {}
                for step in range(8):
                    session.step()
                    if step == 4 and not recipe.content.startswith("data-file"):
                        imgio("snapshot", "create", session.path, "then", *session.key)
                        snapshots["then"] = bytes(session.disk)
                luks, path = session.luks, session.path
                self.assertTrue(qemu_raw(folder, path, luks) == bytes(session.disk))
                self.assertTrue(our_raw(folder, path, *session.key) == bytes(session.disk))
                for name, disk in snapshots.items():
                    self.assertTrue(qemu_raw(folder, path, luks, name) == disk)
                clean(path, luks)
                if recipe.content == "bitmaps":
                    self.assertEqual(our_bitmap(path, "one"), session.dirty_ranges())
                    self.assertEqual(qemu_bitmap(folder, path, "one"), session.dirty_ranges())
                if recipe.content == "data-file-raw":
                    data = (folder / "i.qcow2.data").read_bytes()
                    self.assertTrue(data == bytes(session.disk))
                if snapshots:
                    imgio("snapshot", "apply", path, "then", *session.key)
                    self.assertTrue(qemu_raw(folder, path, luks) == snapshots["then"])
                    imgio("snapshot", "delete", path, "then", *session.key)
                    clean(path, luks)


def sample_of(things, count):
    return things if LONG else random.Random(9).sample(things, 3 if SANITIZED else count)


def sample_writes():
    everything = list(write_recipes())
    if LONG:
        return everything
    chosen = random.Random(8).sample(everything, 3 if SANITIZED else 8)
    have = {recipe.content for recipe in chosen}
    for recipe in everything:
        if recipe.content not in have:
            have.add(recipe.content)
            chosen.append(recipe)
    return chosen


class Converting(unittest.TestCase):
    OUTPUTS = [("qcow2", "qcow2", []), ("qcow2", "qcow2", ["-c"]),
               ("qcow2", "qcow2", ["-c", "-o", "compression_type=zstd"]),
               ("qcow2", "qcow2", ["-o", "preallocation=metadata"]),
               ("qcow", "qcow", []), ("vpc", "vpc", ["-o", "force_size=on"]),
               ("vpc", "vpc", ["-o", "subformat=fixed,force_size=on"]), ("cow", None, []),
               ("raw", "raw", [])]

    def source(self, folder):
        raw = folder / "source.raw"
        rng = random.Random(5)
        with open(raw, "wb") as file:
            file.truncate(9 * MB)
            for _ in range(30):
                file.seek(rng.randrange(0, 8 * MB))
                file.write(rng.randbytes(rng.randrange(1, 200000)) if rng.random() < 0.5
                           else b"text " * rng.randrange(1, 40000))
            file.truncate(9 * MB)
        return raw

    def test_between_any_two_formats(self):
        with temp_dir() as folder:
            raw = self.source(folder)
            content = raw.read_bytes()
            made = []
            for number, (ours, theirs, options) in enumerate(self.OUTPUTS):
                path = folder / f"{number}.{ours}"
                imgio("convert", "-f", "raw", "-O", ours, *options, raw, path)
                made.append((path, ours))
                if theirs:
                    out = folder / "check.raw"
                    qemu_img("convert", "-f", theirs, "-O", "raw", path, out)
                    self.assertTrue(out.read_bytes() == content, (ours, options))
            for path, name in made:
                for _, (ours, _, options) in enumerate(self.OUTPUTS):
                    with self.subTest(source=path.name, to=ours, options=options):
                        out = folder / "out"
                        imgio("convert", "--force", "-f", name, "-O", ours, *options, path, out)
                        imgio("compare", "-s", "-f", "raw", "-F", ours, raw, out)
                        out.unlink()

    QCOW2 = ["compat=v2", "compat=v2,cluster_size=512", "cluster_size=2M", "refcount_bits=1",
             "refcount_bits=64,cluster_size=4k", "extended_l2=on", "extended_l2=on,cluster_size=1M",
             "lazy_refcounts=on", "preallocation=falloc", "encrypt.format=luks,encrypt.iter-time=10",
             "encrypt.format=luks,encrypt.iter-time=10,extended_l2=on", "data_file={}",
             "data_file={},data_file_raw=on", "data_file={},cluster_size=4k,extended_l2=off"]
    # (format, words of the command line); {} in them: the name of a data file.
    FORMS = [("qcow2", ["-o", options]) for options in QCOW2] + [
        ("qcow2", ["-c", "-o", "cluster_size=512"]), ("qcow2", ["-c", "-o", "compression_type=zstd"]),
        ("qcow2", ["-c", "-o", "extended_l2=on,cluster_size=2M"]), ("qcow", []), ("qcow", ["-c"]),
        ("vpc", ["-o", "force_size=on"]), ("vpc", ["-o", "subformat=fixed,force_size=on"]),
        ("cow", []), ("raw", [])]

    @staticmethod
    def target(path, form, luks):
        """How qemu-img is told of it."""
        if luks:
            return luks_target(path)
        return ["--image-opts", f"driver={form},file.filename={path}"]

    def make(self, program, raw, path, form):
        name, words = form
        luks = "luks" in str(words)
        words = [word.replace("{}", f"{path}.data") for word in words]
        if program == "imgio":
            imgio("convert", "-f", "raw", "-O", name, *words, *password(path.parent), raw, path)
            return luks
        if luks:
            words[-1] += ",encrypt.key-secret=key"
            words += secret_options()
        # It may fail to measure how fast the machine is ("accurate CPU usage").
        for _ in range(5 if luks else 1):
            done = run("qemu-img", "convert", "-f", "raw", "-O", name, *words, raw, path)
            if done.code == 0:
                return luks
        raise AssertionError(f"{done.command}: exit {done.code}\n{done.err}")

    def test_matrix(self):
        """From any form into any other, whoever made the source. QEMU knows no COW images, and
        qemu-img 7.2 fails to make compressed ones of qcow version 1."""
        pairs = [(program, source, target) for source in self.FORMS for target in self.FORMS
                 for program in ("imgio", "qemu")
                 if program == "imgio" or source not in (("cow", []), ("qcow", ["-c"]))]
        with temp_dir() as folder:
            raw, made = self.source(folder), {}
            for program, source, target in sample_of(pairs, 12):
                with self.subTest(program=program, source=source, target=target):
                    key = (program, str(source))
                    if key not in made:
                        path = folder / f"source{len(made)}.{source[0]}"
                        made[key] = path, self.make(program, raw, path, source)
                    path, _ = made[key]
                    self.judge(folder, raw, path, source[0], target)

    def judge(self, folder, raw, path, name, target):
        out, luks = folder / "out", "luks" in str(target)
        secret = password(folder)
        words = [word.replace("{}", f"{out}.data") for word in target[1]]
        imgio("convert", "--force", "-f", name, "-O", target[0], *words, *secret, path, out)
        imgio("compare", "-s", "-f", "raw", "-F", target[0], *secret, raw, out)
        if target[0] != "raw":
            found = run(BIN / "imgfsck", "--format", target[0], out)
            self.assertEqual(found.code, 0, found.out + found.err)
        if target[0] == "cow":
            return
        back = folder / "back.raw"
        qemu_img("convert", "-O", "raw", *self.target(out, target[0], luks), back)
        self.assertEqual(back.read_bytes()[:raw.stat().st_size], raw.read_bytes())
        if target[0] == "qcow2":
            clean(out, luks)

    def test_holes_are_kept(self):
        with temp_dir() as folder:
            path, raw = folder / "i.qcow2", folder / "i.raw"
            imgio("create", "-f", "qcow2", path, "1T")
            imgio("write", path, "700G", "--pattern", 9, "--length", "1M")
            imgio("convert", path, raw)
            self.assertEqual(os.stat(raw).st_size, 1 << 40)
            self.assertLess(os.stat(raw).st_blocks * 512, 2 * MB)
            imgio("compare", path, raw, "-F", "raw")
            imgio("write", path, "900G", "--pattern", 1, "--length", "1")
            self.assertIn(str(900 << 30), imgio("compare", path, raw, "-F", "raw", code=1))

    def test_salvage(self):
        with temp_dir() as folder:
            path = folder / "i.qcow2"
            imgio("create", "-f", "qcow2", path, "2M")
            imgio("write", path, 0, "--pattern", 5, "--length", "2M", "-c")
            start = json.loads(qemu_img("check", "--output=json", path))
            self.assertEqual(start["compressed-clusters"], 32)
            # The fifth stream's bytes become something that no inflater takes.
            from imglib.qcow2 import Qcow2
            with Qcow2(path) as image:
                entries = list(image.slots())
                offset, _ = image.compressed_span(entries[4].entry)[:2]
            with open(path, "r+b") as file:
                file.seek(offset)
                file.write(b"\xff" * 30)
            imgio("convert", path, folder / "no.raw", code=8)
            self.assertFalse((folder / "no.raw").exists())
            out = imgio("convert", "--salvage", "--lost-map", folder / "map", path,
                        folder / "yes.raw")
            self.assertIn("lost 262144 65536", out)
            raw = (folder / "yes.raw").read_bytes()
            self.assertEqual(raw[262144:327680], bytes(65536))
            self.assertEqual(raw[:262144], b"\x05" * 262144)
            self.assertIn("0x00040000  0x00010000  -", (folder / "map").read_text())

    def test_into_an_existing_image(self):
        with temp_dir() as folder:
            raw, path = self.source(folder), folder / "i.qcow2"
            imgio("create", "-f", "qcow2", path, "9M")
            imgio("write", path, 0, "--pattern", 3, "--length", "9M")
            imgio("convert", "-f", "raw", raw, path, code=8)
            imgio("convert", "-n", "-f", "raw", "-O", "qcow2", raw, path)
            imgio("compare", "-f", "raw", raw, path)
            clean(path)

    # What is made, on what: format, options, the base's format.
    ON_BASES = [("qcow2", [], "raw"), ("qcow2", ["-c"], "qcow2"),
                ("qcow2", ["-o", "compat=v2,cluster_size=512"], "vpc"),
                ("qcow2", ["-o", "extended_l2=on"], "qcow2"),
                ("qcow2", ["-o", "cluster_size=2M"], "raw"), ("qcow", [], "qcow2"),
                ("cow", [], "raw"), ("vpc", ["-o", "subformat=differencing,force_size=on"], "vpc"),
                ("vpc", ["-o", "subformat=differencing,force_size=on"], "raw")]

    def changed(self, raw, longer):
        """Another disk: parts of `raw` are written anew, parts are zeros, and it may be longer."""
        disk = bytearray(raw.read_bytes())
        disk[100:200] = b"n" * 100
        disk[3 * MB:3 * MB + 100000] = bytes(100000)
        disk[5 * MB + 700:5 * MB + 200000] = b"new " * 49825
        if longer:
            disk += bytes(2 * MB) + b"end of it".ljust(5120, b"!")
        return bytes(disk)

    def test_onto_a_backing_file(self):
        with temp_dir() as folder:
            raw = self.source(folder)
            bases = {"raw": raw, "qcow2": folder / "base.qcow2", "vpc": folder / "base.vpc"}
            imgio("convert", "-f", "raw", "-O", "qcow2", "-c", raw, bases["qcow2"])
            imgio("convert", "-f", "raw", "-O", "vpc", "-o", "force_size=on", raw, bases["vpc"])
            for ours, options, below in self.ON_BASES:
                with self.subTest(format=ours, options=options, base=below):
                    disk = self.changed(raw, longer=ours in ("qcow2", "qcow"))
                    new, out = folder / "new.raw", folder / f"out.{ours}"
                    new.write_bytes(disk)
                    imgio("convert", "--force", "-f", "raw", "-O", ours, *options, "-B",
                          bases[below], "-F", below, new, out)
                    imgio("compare", "-s", "-f", "raw", "-F", ours, new, out)
                    if "cluster_size=2M" not in options:
                        self.assertLess(os.stat(out).st_blocks * 512, 5 * MB)
                    if ours in ("qcow2", "qcow"):
                        qemu_img("compare", "-f", "raw", "-F", ours, new, out)
                    if ours == "qcow2":
                        clean(out)
                    # Where nothing changed, the base is asked.
                    held = json.loads(imgio("map", "--json", "-f", ours, out))
                    self.assertTrue(all(entry["depth"] == 1 for entry in held
                                        if 6 * MB <= entry["start"] and
                                        entry["start"] + entry["length"] <= 8 * MB and
                                        entry["present"]))
                    # All of the other disk is zeros: written, so that the base does not shine through.
                    new.write_bytes(bytes(len(disk)))
                    imgio("convert", "--force", "-f", "raw", "-O", ours, *options, "-B",
                          bases[below], "-F", below, new, out)
                    imgio("compare", "-s", "-f", "raw", "-F", ours, new, out)

    def test_backing_files_that_cannot_be(self):
        with temp_dir() as folder:
            raw, out = self.source(folder), folder / "out"
            for arguments, code in ((("-O", "raw", "-B", raw, "-F", "raw"), 8),
                                    (("-O", "qcow2", "-B", folder / "none", "-F", "raw"), 8),
                                    (("-O", "qcow2", "-B", out, "-F", "raw"), 8),
                                    (("-O", "qcow2", "-B", "nbd://localhost/x", "-F", "raw"), 8),
                                    (("-O", "cow", "-B", raw, "-F", "qcow2"), 8),
                                    (("-n", "-O", "qcow2", "-B", raw), 16)):
                imgio("convert", "-f", "raw", *arguments, raw, out, code=code)
                self.assertFalse(out.exists())
            keep = raw.read_bytes()
            imgio("convert", "--force", "-f", "raw", "-O", "qcow2", "-B", raw, "-F", "raw", raw, raw,
                  code=8)
            other = folder / "other.raw"
            other.write_bytes(keep)
            imgio("convert", "--force", "-f", "raw", "-O", "qcow2", "-B", raw, "-F", "raw", other, raw,
                  code=8)
            self.assertEqual(raw.read_bytes(), keep)


class Layers(unittest.TestCase):
    def chain(self, folder):
        """base <- middle <- top, and what the top reads."""
        disk = bytearray(2 * MB)
        for level, name in enumerate(["base", "middle", "top"]):
            extra = ["-b", f"{before}.qcow2", "-F", "qcow2"] if level else []
            imgio("create", "-f", "qcow2", "-o", "cluster_size=4k", *extra,
                  folder / f"{name}.qcow2", *([] if level else ["2M"]))
            for at in range(level * 10000, 2 * MB, 90000 + level * 7000):
                imgio("write", "-q", folder / f"{name}.qcow2", at, "--pattern", level + 1,
                      "--length", 9000 if at + 9000 < 2 * MB else 2 * MB - at)
                disk[at:at + 9000] = bytes([level + 1]) * len(disk[at:at + 9000])
            before = name
        imgio("zero", folder / "top.qcow2", "1M", 50000)
        disk[MB:MB + 50000] = bytes(50000)
        return bytes(disk[:2 * MB])

    def test_map_through_a_chain(self):
        with temp_dir() as folder:
            self.chain(folder)
            top = folder / "top.qcow2"
            ours = json.loads(imgio("map", "--json", top))
            theirs = json.loads(qemu_img("map", "--output=json", "-f", "qcow2", top))
            self.assertEqual(ours, theirs)

    def test_commit(self):
        with temp_dir() as folder:
            disk = self.chain(folder)
            imgio("commit", folder / "top.qcow2")
            for name in ("top", "middle"):
                clean(folder / f"{name}.qcow2")
                self.assertEqual(qemu_raw(folder, folder / f"{name}.qcow2"), disk)
            self.assertFalse(any(entry["depth"] == 0 and entry["present"]
                                 for entry in json.loads(imgio("map", "--json",
                                                               folder / "top.qcow2"))))

    def test_rebase(self):
        for target in ("base.qcow2", ""):
            with temp_dir() as folder:
                disk = self.chain(folder)
                top = folder / "top.qcow2"
                imgio("rebase", "-b", target, *(["-F", "qcow2"] if target else []), top)
                clean(top)
                self.assertEqual(qemu_raw(folder, top), disk)
                info = json.loads(qemu_img("info", "--output=json", top))
                self.assertEqual(info.get("backing-filename", ""), target)

    def test_names_that_must_not_be_opened(self):
        with temp_dir() as folder:
            for name in ("json:{\"driver\":\"null-co\"}", "nbd://localhost/x", "/dev/zero",
                         "self.qcow2"):
                path = folder / "self.qcow2"
                imgio("create", "--force", "-u", "-f", "qcow2", "-b", name, "-F", "qcow2", path,
                      "1M")
                imgio("read", path, 0, 10, code=8)
            imgio("rebase", "-u", "-b", "", path)
            self.assertEqual(imgio("read", path, 0, 10), "\0" * 10)

    def test_resize(self):
        with temp_dir() as folder:
            disk = self.chain(folder)
            top = folder / "top.qcow2"
            imgio("resize", top, "-1M", code=8)
            imgio("resize", "--shrink", top, "-1M")
            self.assertEqual(qemu_raw(folder, top), disk[:MB])
            imgio("resize", top, "+3M")
            clean(top)
            self.assertEqual(qemu_raw(folder, top), disk[:MB] + bytes(3 * MB))


class Contract(unittest.TestCase):
    def test_statuses(self):
        with temp_dir() as folder:
            path = folder / "i.qcow2"
            imgio("create", "-f", "qcow2", path, "1M")
            imgio("create", "-f", "qcow2", path, "1M", code=8)
            for words in (["frob"], ["read", path], ["read", path, "x", 1], ["resize", path, "big"],
                          ["write", path, 0], ["bitmap", path, "x"], []):
                imgio(*words, code=16)
            imgio("read", path, "1M", 1, code=8)
            imgio("read", folder / "none", 0, 1, code=8)
            (folder / "junk").write_bytes(b"junk" * 1000)
            imgio("info", folder / "junk", code=8)
            imgio("--help")
            imgio("--version")
            imgio("convert", "--help")

    def test_reading_changes_nothing(self):
        with temp_dir() as folder:
            path = folder / "i.qcow2"
            imgio("create", "-f", "qcow2", path, "1M")
            before = path.read_bytes(), os.stat(path).st_mtime_ns
            for words in (["info"], ["map"], ["snapshot", "list"], ["bitmap", "list"]):
                imgio(*words, path)
            imgio("convert", path, folder / "out.raw")
            self.assertEqual((path.read_bytes(), os.stat(path).st_mtime_ns), before)


if __name__ == "__main__":
    sys.exit(not unittest.main(exit=False, verbosity=1).result.wasSuccessful())
