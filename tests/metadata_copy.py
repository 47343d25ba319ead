#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`imgdump --metadata` of every damaged image: imgfsck finds in the copy what it finds in the image,
no byte of a guest is in it, and with --redact no name either. The image is not touched."""
import os
import random

from imglib.claims import Claims
from imglib.make import Recipe
from imglib.patient import RECIPES
from imglib.programs import (BIN, LONG, check_json, digest, folder_state, imgdump, qemu_img,
                             qemu_io, run)
from imglib.qcow2 import Qcow2
from imglib.testing import ImageTest, main, sample

# What a finding says that does not quote a name.
PLACE = ("code", "severity", "structure", "layer", "host-offset", "length", "guest-offset",
         "guest-length", "count", "repair")
# Findings about another file, by its name.
OF_OTHER_FILES = {"qcow2-datafile-short", "vhd-parent-unresolved", "cow-backing-size",
                  "cow-backing-mtime", "cow-backing-is-cow"}



def essence(document, places=PLACE):
    return sorted((tuple(str(f.get(key)) for key in places) for f in document["findings"]
                   if f["code"] not in OF_OTHER_FILES or places is None), key=str)


class CopyTest(ImageTest):
    on_disk = False

    def copy(self, path, *options, name="copy"):
        target = self.folder / name
        target.unlink(missing_ok=True)
        done = imgdump("--metadata", target, *options, path)
        self.assertEqual(done.code, 0, done.err)
        return target, done.err

    def assert_same_findings(self, path, target, options=(), full=True):
        _, before = check_json(path, *options)
        _, after = check_json(target, *options)
        if full:
            self.assertEqual(after["findings"], before["findings"])
        self.assertEqual(essence(after), essence(before))
        keys = ["image-end-offset", "total-clusters", "allocated-clusters", "virtual-size",
                "file-size"]
        if not any(f["code"] in OF_OTHER_FILES for f in before["findings"]):
            keys += ["corruptions", "leaks"]
        for key in keys:
            self.assertEqual(after[key], before[key], key)


class MetadataCopy(CopyTest):
    def guest_pieces(self, sound):
        """(place in the file, 16 bytes as they stand there) of guest data, from a sound image."""
        with Qcow2(sound) as image:
            claims = Claims(image)
            for cluster, owners in claims.by_cluster.items():
                if {c.kind for c in owners} <= {"data", "compressed"}:
                    for at in range(cluster * image.cluster_size,
                                    (cluster + 1) * image.cluster_size, 512):
                        piece = image.read(at, 16)
                        if piece.count(0) < 8:
                            yield at, piece

    def test_every_recipe(self):
        for name in sample(RECIPES, 25, 10):
            with self.subTest(damage=name):
                self.fresh_folder()
                recipe = RECIPES[name]
                self.check_recipe(name, recipe)

    def check_recipe(self, name, recipe):
        sound = self.sound(recipe.base)
        pieces = list(self.guest_pieces(sound))
        path, _ = self.damaged(name)
        before = folder_state(self.folder)
        format_option = [o for o in recipe.options if o != "--deep"]
        for redact in ([], ["--redact"]):
            target, notes = self.copy(path, *format_option, *redact)
            self.assert_same_findings(path, target, format_option, full=not redact)
            self.assertNotIn("finds something else", notes)
            self.assertEqual(os.stat(target).st_size, os.stat(path).st_size)
            self.assert_no_guest_bytes(target, pieces, may_share="may hold guest data" in notes)
            target.unlink()
        self.assertEqual(folder_state(self.folder), before)

    def assert_no_guest_bytes(self, target, pieces, may_share):
        """Two pieces that lie beside each other are no accident."""
        data = target.read_bytes()
        if len(data) > 16 << 20:
            pieces = pieces[::len(pieces) // 10 + 1]
        found = [at for at, piece in pieces if piece in data]
        if may_share:
            self.assertLess(len(found), max(len(pieces) // 3, 3))
        else:
            self.assertEqual(found, [])

    def test_names_are_gone(self):
        cases = {"backing": [b"disk.qcow2.base"], "snapshots": [b"second one", b"third"],
                 "bitmaps": [b"first", b"other"], "data-file": [str(self.folder).encode()]}
        for content, names in cases.items():
            with self.subTest(content=content):
                self.fresh_folder()
                path = self.sound(Recipe(content))
                plain, _ = self.copy(path)
                redacted, _ = self.copy(path, "--redact", name="redacted")
                for name in names:
                    self.assertIn(name, plain.read_bytes())
                    self.assertNotIn(name, redacted.read_bytes())
                self.assert_same_findings(path, redacted, full=False)

    def test_keys_stay_at_home(self):
        path = self.sound(Recipe("luks"))
        with Qcow2(path) as image:
            offset = image.extension(0x0537BE77).data
            offset = int.from_bytes(offset[:8], "big")
            key, salt = image.read(offset + 8 * 512, 64), image.read(offset + 208 + 8, 32)
        plain, _ = self.copy(path)
        redacted, _ = self.copy(path, "--redact", name="redacted")
        self.assertNotIn(key, plain.read_bytes())
        self.assertIn(salt, plain.read_bytes())
        self.assertNotIn(salt, redacted.read_bytes())

    def test_existing_file_and_raw_are_refused(self):
        path = self.sound(Recipe())
        target = self.folder / "there"
        target.write_bytes(b"precious")
        self.assertEqual(imgdump("--metadata", target, path).code, 8)
        self.assertEqual(target.read_bytes(), b"precious")
        self.assertEqual(imgdump("--redact", path).code, 16)
        raw = self.folder / "raw"
        raw.write_bytes(bytes(4096) + b"guest")
        self.assertEqual(imgdump("--metadata", self.folder / "x", "--format", "raw", raw).code, 8)
        self.assertFalse((self.folder / "x").exists())


class OtherFormats(CopyTest):
    """Images of the other formats with bytes scribbled over them anywhere."""

    def make_vpc(self, path, kind):
        qemu_img("create", "-q", "-f", "vpc", "-o", f"subformat={kind}", path, "9M")
        self.fill(path, "vpc")

    def make_qcow(self, path):
        base = self.folder / "base.raw"
        base.write_bytes(bytes(1 << 20))
        qemu_img("create", "-q", "-f", "qcow", "-b", base.name, "-F", "raw", path, "9M")
        self.fill(path, "qcow")

    def make_cow(self, path):
        base = self.folder / "base.raw"
        base.write_bytes(bytes(3 << 20))
        run("uml_mkcow", path, base, check=True)
        self.poke_cow(path)

    def poke_cow(self, path):
        """Stores two sectors as the kernel would: a bit, and the sector."""
        data = bytearray(path.read_bytes())
        bitmap, start = 8192, 8192 + 4096
        data[bitmap] |= 0xA0
        data += bytes(max(0, start + (3 << 20) - len(data)))
        for sector in (5, 7):
            data[start + sector * 512:start + (sector + 1) * 512] = b"GUESTDATA-SECRET" * 32
        path.write_bytes(data)

    def fill(self, path, format_name):
        secret = self.folder / "secret"
        secret.write_bytes(b"GUESTDATA-SECRET" * 32)
        places = [0, 65536, 70000 // 512 * 512, 3 << 20, 7 << 20]
        qemu_io(path, [f"write -s {secret} {at} 12288" for at in places],
                ["-f", format_name, path])
        secret.unlink()

    def scribble(self, path, chance):
        size = os.path.getsize(path)
        with open(path, "r+b") as file:
            for _ in range(chance.randint(0, 3)):
                where = chance.choice((64, 512, 2048, 65536, size))
                place = chance.randrange(min(where, size))
                if chance.random() < 0.2:
                    place = max(0, size - chance.randrange(1, 600))
                file.seek(place)
                length = chance.choice((1, 4, 8, 64, 512))
                file.write(chance.choice((bytes(length), b"\xff" * length,
                                          chance.randbytes(length)))[:size - place])
            if chance.random() < 0.1:
                file.truncate(chance.randrange(size // 2, size))

    def one(self, make, format_name, seed):
        self.fresh_folder()
        path = self.folder / "image"
        make(path)
        chance = random.Random(f"metadata {format_name} {seed}")
        self.scribble(path, chance)
        before = digest(path)
        chosen = ["--format", format_name]
        for redact in ([], ["--redact"]):
            target, notes = self.copy(path, *chosen, *redact)
            self.assert_same_findings(path, target, chosen, full=False)
            self.assertNotIn("finds something else", notes if not redact else "")
            data = target.read_bytes()
            self.assertLessEqual(data.count(b"GUESTDATA-SECRET"), 16 * 8)
            if redact:
                self.assertNotIn(b"base.raw", data)
            target.unlink()
        self.assertEqual(digest(path), before)

    def test_scribbled(self):
        makers = {"vpc": lambda path: self.make_vpc(path, "dynamic"), "qcow": self.make_qcow,
                  "cow": self.make_cow}
        for format_name, make in makers.items():
            # 172: a table of which the beginning is a hole in the copy
            for seed in range(200) if LONG else (*range(6), 172):
                with self.subTest(format=format_name, seed=seed):
                    self.one(make, format_name, seed)

    def test_fixed_vpc(self):
        for seed in range(40 if LONG else 3):
            with self.subTest(seed=seed):
                self.one(lambda path: self.make_vpc(path, "fixed"), "vpc", seed)

    def test_parents_name_is_gone(self):
        parent, child = self.folder / "secret-parent.vhd", self.folder / "child.vhd"
        self.make_vpc(parent, "dynamic")
        uuid = parent.read_bytes()[68:84].hex()
        run(BIN / "imgio", "create", "-f", "vpc", "-o",
            f"backing_file={parent.name},parent_uuid={uuid}", child, "9M", check=True)
        name = "secret-parent".encode("utf-16-be")[1:-1]
        plain, _ = self.copy(child)
        self.assertIn(name, plain.read_bytes())
        redacted, _ = self.copy(child, "--redact", name="redacted")
        for text in (name, b"secret-parent", b"ecret", "ecret".encode("utf-16-le")):
            self.assertNotIn(text, redacted.read_bytes())
        self.assert_same_findings(child, redacted, full=False)


if __name__ == "__main__":
    main()
