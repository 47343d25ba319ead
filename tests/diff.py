#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""imgdump --diff against what qemu-img converts the two disks to, compared sector by sector: two
images, two overlays, snapshots of one image, other formats, damage and other sizes."""
import json
import os
import random
import struct

from imglib.guests import debugfs, ext, fill, set_entry
from imglib.make import Recipe
from imglib.programs import BIN, copy, folder_state, imgdump, qemu_img, qemu_io, run
from imglib.testing import ImageTest, main
from imglib.traced import TRACED

SECTOR, CLUSTER, MB = 512, 65536, 1 << 20
RAW = ("--format", "raw", "--diff-format", "raw")


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


class DiffNames(ImageTest):
    """--names: what debugfs says of the blocks, on the disk before and on the disk after."""
    BLOCK = 4096
    EVIL = "\x1b[31m<b>\u202e"

    def disks(self):
        """(before, now): `gone` was removed, `new` came, `other` and one with a bad name were
        overwritten in part."""
        raw, tree, new = (self.folder / name for name in ("raw", "tree", "new"))
        fill(tree, {"gone": 300_000, "etc/other": 500_000, "etc/" + self.EVIL: 300_000,
                    "same": 100_000})
        new.write_bytes(b"new" * 60_000)
        ext(raw, tree=tree, options=("-b", self.BLOCK))
        now = self.folder / "raw-now"
        copy(raw, now)
        debugfs(now, f"write {new} new", "rm gone")
        with open(now, "r+b") as file:
            for name, block in (("/etc/other", 3), ("/etc/" + self.EVIL, 5)):
                file.seek(self.blocks(now, name)[block] * self.BLOCK)
                file.write(b"changed" * 100)
        return raw, now

    def blocks(self, raw, name):
        out = run("debugfs", "-R", f'blocks "{name}"', raw, check=True).out
        return [int(word) for word in out.split()]

    def wanted(self, raw, document):
        """{path: bytes} of the files that the differences lie in."""
        found = {}
        for entry in document["differences"]:
            begin, end = entry["guest-offset"], entry["guest-offset"] + entry["guest-length"]
            for path, blocks in self.paths[raw].items():
                for at in (block * self.BLOCK for block in blocks):
                    shared = min(end, at + self.BLOCK) - max(begin, at)
                    if shared > 0:
                        found[path] = found.get(path, 0) + shared
        return found

    def judge(self, document, before, now):
        names = ["gone", "etc/other", "etc/" + self.EVIL, "same", "new"]
        self.paths = {raw: {f"/{name}": self.blocks(raw, f"/{name}") for name in names
                            if name != missing}
                      for raw, missing in ((before, "new"), (now, "gone"))}
        for raw, key, list_key in ((before, "guest-before", "names-before"),
                                   (now, "guest", "names")):
            self.assertEqual(document[key]["disk"]["volumes"][0]["type"], "ext4")
            files = {f["path"]: f["bytes"] for f in document[key]["files"][0]["files"]
                     if f["kind"] == "file" and f.get("path") in self.paths[raw]}
            self.assertEqual(files, self.wanted(raw, document))
            hits = {}
            for entry in document["differences"]:
                begin, end = entry["guest-offset"], entry["guest-offset"] + entry["guest-length"]
                for hit in entry[list_key]:
                    self.assertGreaterEqual(hit["guest-offset"], begin)
                    self.assertLessEqual(hit["guest-offset"] + hit["guest-length"], end)
                    if hit["kind"] == "file" and hit.get("path") in self.paths[raw]:
                        block, rest = divmod(hit["guest-offset"], self.BLOCK)
                        number = self.paths[raw][hit["path"]].index(block)
                        self.assertEqual(hit["file-offset"], number * self.BLOCK + rest)
                        hits[hit["path"]] = hits.get(hit["path"], 0) + hit["guest-length"]
            self.assertEqual(hits, files)
        self.assertIn("/new", self.wanted(now, document))

    def test_two_images(self):
        before, now = self.disks()
        one, two = self.folder / "one", self.folder / "two"
        for raw, image in ((before, one), (now, two)):
            qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, image)
        state = folder_state(self.folder)
        done = imgdump("--json", "--diff", one, "--names", two, check=True)
        self.assertEqual(folder_state(self.folder), state)
        self.judge(json.loads(done.out), before, now)
        plain = json.loads(imgdump("--json", "--diff", one, two).out)
        self.assertNotIn("guest", plain)
        self.assertNotIn("names", plain["differences"][0])
        text = imgdump("--diff", one, "--names", two, check=True).out
        self.assertRegex(text, r"\n  in: /new, from its byte 0x0 on")
        self.assertRegex(text, r"\nfiles of the disk now, in what differs \(.*\):\n")
        self.assertRegex(text, r"\n +\d+ KiB  /new\n")
        self.assertIn("<b>", text)
        self.assertNotRegex(text, "[\x1b\u202e]")

    def test_a_file_that_gave_its_place_to_another(self):
        before, now = self.disks()
        blocks = self.blocks(before, "/gone")
        self.assertEqual(len(blocks), max(blocks) - min(blocks) + 1)
        at = blocks[0] * self.BLOCK
        with open(now, "r+b") as file:
            file.seek(at)
            file.write(b"x" * 1000)
        text = imgdump(*RAW, "--diff", before, "--names", now, check=True).out
        self.assertIn("  in: free in the guest's file system (1 KiB)\n"
                      "  was in: /gone, from its byte 0x0 on (1 KiB)\n", text)

    def test_snapshots_of_one_image(self):
        before, now = self.disks()
        image = self.folder / "image"
        qemu_img("convert", "-f", "raw", "-O", "qcow2", before, image)
        qemu_img("snapshot", "-c", "monday", image)
        for entry in json.loads(imgdump("--json", *RAW, "--diff", before, now).out)["differences"]:
            piece = self.folder / "piece"
            with open(now, "rb") as file:
                file.seek(entry["guest-offset"])
                piece.write_bytes(file.read(entry["guest-length"]))
            qemu_io(image, [f"write -s {piece} {entry['guest-offset']} {entry['guest-length']}"])
        done = imgdump("--json", "--diff", image, "--diff-snapshot", "monday", "--names", image,
                       check=True)
        self.judge(json.loads(done.out), before, now)

    def test_a_broken_file_system_costs_the_names_alone(self):
        before, now = self.disks()
        data = bytearray(now.read_bytes())
        data[1024:2048] = bytes(range(256)) * 4  # no superblock any more
        now.write_bytes(data)
        document = json.loads(imgdump("--json", *RAW, "--diff", before, "--names", now,
                                      check=True).out)
        self.assertEqual(document["guest"]["disk"]["volumes"][0]["trouble"], "not mapped")
        self.assertTrue(document["guest-before"]["files"][0]["files"])
        bare = json.loads(imgdump("--json", *RAW, "--diff", before, now).out)
        self.assertEqual([(e["guest-offset"], e["change"]) for e in bare["differences"]],
                         [(e["guest-offset"], e["change"]) for e in document["differences"]])

    def test_what_cannot_be_read_is_said(self):
        before, now = self.disks()
        image = self.folder / "image"
        qemu_img("convert", "-f", "raw", "-O", "qcow2", now, image)
        cluster = self.blocks(now, "/same")[0] * self.BLOCK // CLUSTER
        set_entry(image, cluster, 1 << 63 | 512)
        document = json.loads(imgdump("--json", *RAW[2:], "--diff", before, "--names", image,
                                      check=True).out)
        lost = next(e for e in document["differences"] if e["change"] == "unreadable")
        self.assertIn("/same", {hit.get("path") for hit in lost["names-before"]})

    def test_the_helper_is_filtered_and_nothing_is_written(self):
        before, now = self.disks()
        trace = self.folder / "trace"
        done = run("strace", "-f", "-e", "trace=openat,open,seccomp,socket,execve", "-o", trace,
                   BIN / "imgdump", *RAW, "--diff", before, "--names", now, env=TRACED)
        self.assertIn("  in: /new", done.out)
        calls = trace.read_text()
        if "seccomp" in calls:  # not in builds with sanitizers
            workers = {line.split()[0] for line in calls.splitlines()
                       if "seccomp(SECCOMP_SET_MODE_FILTER, 0" not in line
                       and "SECCOMP_SET_MODE_FILTER" in line}
            self.assertGreaterEqual(len(workers), 3, calls)  # it, and one for each disk
        for word in ("O_WRONLY", "O_RDWR", "socket(AF_INET"):
            self.assertNotIn(word, calls)

    def test_errors(self):
        before, now = self.disks()
        for words in (("--names", now), ("--diff-format", "raw", now)):
            self.assertEqual(imgdump(*words).code, 16, words)
        done = imgdump("--diff", self.folder / "gone", "--names", now)
        self.assertEqual((done.code, done.out), (8, ""))


if __name__ == "__main__":
    main()
