#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""imgfsck --chain: every link of a chain of backing files is judged and every image below is checked
as one of its own; nothing is opened without it, and nothing but plain local files with it."""
import json
import os

from imglib.cow import Cow
from imglib.programs import BIN, folder_state, imgfsck, qemu_img, qemu_io, run
from imglib.testing import ImageTest, main

KB = 1024


def lines(*options):
    """(exit code, a document for each image)."""
    done = imgfsck("--json", *options)
    return done.code, [json.loads(line) for line in done.out.splitlines()]


def found(document):
    return {finding["code"]: finding for finding in document["findings"]}


class Chain(ImageTest):
    def overlay(self, name, base, form="qcow2", base_form=None, size=640 * KB):
        path = self.folder / name
        options = ["-F", base_form] if base_form else []
        qemu_img("create", "-q", "-u", "-f", form, "-b", base, *options, path, size)
        return path

    def expect(self, path, code, exit_code=4, **more):
        before = folder_state(self.folder)
        status, documents = lines("--chain", path)
        self.assertEqual(folder_state(self.folder), before)
        self.assertEqual(status, exit_code, documents)
        self.assertIn(code, found(documents[0]))
        for key, value in more.items():
            self.assertEqual(found(documents[0])[code][key], value)
        return documents

    def test_sound_chains(self):
        raw = self.folder / "base.raw"
        raw.write_bytes(os.urandom(640 * KB))
        (self.folder / "sub").mkdir()
        for base in ("base.raw", str(raw)):
            for bottom in ("qcow2", "qcow"):
                with self.subTest(base=base, bottom=bottom):
                    mid = self.overlay(f"mid.{bottom}", base, bottom, "raw")
                    top = self.overlay("sub/top.qcow2", f"../mid.{bottom}", "qcow2", bottom)
                    status, documents = lines("--chain", top)
                    self.assertEqual(status, 0, documents)
                    self.assertEqual([d["format"] for d in documents], ["qcow2", bottom])
                    self.assertEqual(os.path.realpath(documents[1]["filename"]),
                                     os.path.realpath(mid))
                    self.assertEqual([d["findings"] for d in documents], [[], []])
                    self.assertEqual(len(lines(top)[1]), 1)

    def test_damage_below_counts(self):
        mid = self.overlay("mid.qcow2", "base.raw", base_form="raw")
        (self.folder / "base.raw").write_bytes(bytes(640 * KB))
        qemu_io(mid, ["write 0 64k"])
        top = self.overlay("top.qcow2", "mid.qcow2", base_form="qcow2")
        with open(mid, "r+b") as file:  # the L2 table's entry, past the end of the file
            file.seek(3 * 64 * KB)
            file.write((1 << 63 | 1 << 40).to_bytes(8, "big"))
        self.assertEqual(lines(top)[0], 0)
        status, documents = lines("--chain", top)
        self.assertEqual((status, documents[0]["exit-code"], documents[1]["exit-code"]), (4, 0, 4))
        # A repair mends the image that it was given and no other.
        before = folder_state(self.folder)
        self.assertEqual(lines("--chain", "--repair=all", top)[0], 4)
        self.assertEqual(folder_state(self.folder), before)

    def test_missing(self):
        for form in ("qcow2", "qcow"):
            top = self.overlay(f"top.{form}", "nowhere.raw", form, "raw")
            document = self.expect(top, "chain-missing", severity="corruption")[0]
            self.assertNotIn(f"{form}-backing-missing", found(document))
            status, (plain,) = lines(top)
            self.assertEqual(status, 0)
            self.assertEqual(found(plain)[f"{form}-backing-missing"]["severity"], "warning")

    def test_cycles(self):
        itself = self.overlay("itself.qcow2", "itself.qcow2", base_form="qcow2")
        self.expect(itself, "chain-cycle")
        one = self.overlay("one.qcow2", "two.qcow2", base_form="qcow2")
        self.overlay("two.qcow2", "three.qcow2", base_form="qcow2")
        (self.folder / "three.qcow2").symlink_to("one.qcow2")
        self.expect(one, "chain-cycle")

    def test_too_deep(self):
        for number in range(131):
            self.overlay(f"{number}.qcow2", f"{number + 1}.qcow2", base_form="qcow2")
        self.expect(self.folder / "0.qcow2", "chain-too-deep")

    def test_short(self):
        self.overlay("short.qcow2", "base.raw", base_form="raw", size=64 * KB)
        (self.folder / "base.raw").write_bytes(bytes(64 * KB))
        top = self.overlay("top.qcow2", "short.qcow2", base_form="qcow2")
        self.expect(top, "chain-short", 0, severity="warning")

    def test_another_format(self):
        (self.folder / "base.raw").write_bytes(bytes(640 * KB))
        top = self.overlay("top.qcow2", "base.raw", base_form="qcow2")
        self.expect(top, "chain-format-mismatch")
        # Said to be raw, it is: a guest may have written whatever it likes to the first bytes.
        inner = self.overlay("inner.qcow2", "base.raw", base_form="raw")
        document = lines("--chain", self.overlay("over.qcow2", inner.name, base_form="raw"))
        self.assertEqual(len(document[1]), 1)

    def test_names_that_are_not_followed(self):
        (self.folder / "base.raw").write_bytes(bytes(640 * KB))
        for name in ('json:{"driver":"file","filename":"base.raw"}', "nbd://localhost/x",
                     "https://localhost/base.raw"):
            top = self.overlay("top.qcow2", name, base_form="raw")
            self.expect(top, "chain-name-not-followed", 0, severity="warning")

    def test_what_is_no_file(self):
        os.mkfifo(self.folder / "fifo")
        for name in ("fifo", ".", "/dev/zero"):
            top = self.overlay("top.qcow2", name, base_form="raw")
            status, documents = lines("--chain", top)
            self.assertEqual(status, 4)
            self.assertIn("chain-missing", found(documents[0]))

    def cow(self, name, layout, base, size=640 * KB):
        path = self.folder / name
        Cow(layout, size).header(base, 0).save(path)
        return path

    def test_cow_images(self):
        raw = self.folder / "base.raw"
        raw.write_bytes(os.urandom(640 * KB))
        os.utime(raw, (0, 0))
        self.assertEqual(lines("--chain", self.cow("good.cow", "uml-v3", raw))[0], 0)
        for layout in ("uml-v3", "qemu-x86-64"):
            gone = self.cow("gone.cow", layout, self.folder / "nowhere")
            self.expect(gone, "chain-missing", severity="corruption")
            self.assertIn("cow-backing-missing", found(lines(gone)[1][0]))
            itself = self.cow("itself.cow", layout, self.folder / "itself.cow")
            self.expect(itself, "cow-chain-cycle")
        # QEMU's layout says nothing of a format: an image is an image, all else is raw.
        mid = self.overlay("mid.qcow2", "base.raw", base_form="raw")
        qemu_io(mid, ["write -P 7 0 64k"])
        status, documents = lines("--chain", self.cow("top.cow", "qemu-x86-64", mid))
        self.assertEqual((status, [d["format"] for d in documents]), (0, ["cow", "qcow2"]))
        first = run(BIN / "imgio", "read", self.folder / "top.cow", 0, 512, "--to",
                    self.folder / "out")
        self.assertEqual(first.code, 0, first.err)
        self.assertEqual((self.folder / "out").read_bytes(), b"\7" * 512)
        # User-Mode Linux takes the same file for raw bytes, and says so.
        self.assertEqual(len(lines("--chain", self.cow("raw.cow", "uml-v3", mid,
                                                       mid.stat().st_size))[1]), 1)

    def test_cow_cycles_of_two(self):
        one, two = self.folder / "one.cow", self.folder / "two.qcow"
        self.cow("one.cow", "qemu-x86-64", two)
        self.overlay("two.qcow", "one.cow", "qcow", "raw")  # which it has no place to note
        self.expect(one, "cow-chain-cycle")
        self.expect(two, "chain-cycle")

    def vhd_child(self, name, parent, uuid):
        run(BIN / "imgio", "create", "-f", "vpc", "-o",
            f"backing_file={parent},parent_uuid={uuid}", self.folder / name, "9M", check=True)
        return self.folder / name

    def test_vhd_parents_below_other_images(self):
        parent = self.folder / "parent.vhd"
        qemu_img("create", "-q", "-f", "vpc", "-o", "force_size=on", parent, "9M")
        uuid = parent.read_bytes()[68:84].hex()
        child = self.vhd_child("child.vhd", "parent.vhd", uuid)
        size = 9 * KB * KB
        mid = self.overlay("mid.qcow", "child.vhd", "qcow", "vpc", size)
        top = self.overlay("top.qcow2", "mid.qcow", "qcow2", "qcow", size)
        status, documents = lines("--chain", top)
        self.assertEqual((status, [d["format"] for d in documents]), (0, ["qcow2", "qcow", "vpc"]),
                         documents)
        # A parent that is damaged, then gone, is told of below as it is for the child alone.
        data = bytearray(parent.read_bytes())
        table = data.find(b"\xff" * 8, 512)
        data[table:table + 4] = (0x00F00000).to_bytes(4, "big")
        parent.write_bytes(data)
        status, documents = lines("--chain", top)
        self.assertEqual(status, 4, documents)
        self.assertIn("vhd-parent-bad", found(documents[2]))
        parent.unlink()
        status, documents = lines("--chain", top)
        self.assertEqual(status, 4, documents)
        self.assertIn("vhd-parent-unresolved", found(documents[2]))
        self.assertEqual(lines("--chain", child)[0], 4)
        # Another disk in its place.
        qemu_img("create", "-q", "-f", "vpc", "-o", "force_size=on", parent, "9M")
        self.assertIn("vhd-parent-uuid-mismatch", found(lines("--chain", child)[1][0]))
        # The child, by its own id, as its own parent.
        parent.write_bytes(child.read_bytes())
        self.assertEqual(lines("--chain", top)[0], 4)

    def test_rolled_up_exit_status(self):
        """A warning above and damage below: the worst counts, --exit-style qemu included."""
        top = self.overlay("top.qcow2", "nowhere.raw", base_form="raw")
        self.assertEqual(imgfsck("--chain", "--exit-style", "qemu", top).code, 2)
        self.assertEqual(imgfsck("--chain", "--exit-zero", top).code, 0)


if __name__ == "__main__":
    main()
