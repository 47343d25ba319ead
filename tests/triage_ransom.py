#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""imgtriage on images that were encrypted for ransom, whole or in part, wiped or cut off, each kind
of them made of sound ones: none passes as a file that is no image, and what is left is mapped."""
import json
import random

from imglib.guests import CLUSTER, ext
from imglib.programs import BIN, qemu_img, run
from imglib.testing import ImageTest, main

MB = 1 << 20
TEXT = b"Every byte of this file is plain text, line after line of it.\n"


class Ransom(ImageTest):
    def triage(self, *options):
        done = run(BIN / "imgtriage", "--json", "-", *options, self.folder)
        lines = [json.loads(line) for line in done.out.splitlines()]
        return done.code, {line["filename"].rsplit("/", 1)[-1]: line for line in lines}

    def reasons(self, document):
        return {reason["code"]: reason for reason in document.get("reasons", ())}

    def noise(self, length, seed=1):
        return random.Random(seed).randbytes(length)

    def images(self, size=12 * MB):
        """Sound images of a disk full of text; the raw one's bytes."""
        raw = self.folder / "disk.raw"
        tree = self.folder / "tree"
        tree.mkdir()
        (tree / "text").write_bytes(TEXT * (6 * MB // len(TEXT)))
        ext(raw, f"{size // MB}M", tree=tree, options=("-b", "4096", "-O", "^has_journal"))
        (tree / "text").unlink()
        tree.rmdir()
        for name, words in (("disk.qcow2", ("qcow2",)), ("disk.vmdk", ("vmdk",)),
                            ("disk.vhd", ("vpc", "-o", "subformat=fixed,force_size=on"))):
            qemu_img("convert", "-S", "0", "-f", "raw", "-O", *words, raw, self.folder / name)
        return raw.read_bytes()

    def test_sound_images_and_ordinary_files_pass(self):
        self.images()
        for name, content in (("notes.txt", TEXT), ("keys.bin", self.noise(MB)),
                              ("disk.qcow2.sha256", b"00 disk.qcow2\n"), ("empty", b""),
                              ("disk.img", bytes(MB)), ("new.raw", b""),
                              ("disk.qcow2.gz", b"\x1f\x8b\x08\0" + self.noise(MB))):
            (self.folder / name).write_bytes(content)
        code, found = self.triage("--entropy")
        self.assertEqual(code, 0, [(n, self.reasons(d)) for n, d in found.items()])
        self.assertEqual([n for n, d in found.items() if "named-image" in self.reasons(d)], [])

    def test_what_is_no_image_any_more(self):
        contents = {"empty.qcow2": b"", "wiped.vhd": bytes(MB), "noise.vmdk": self.noise(MB),
                    "text.vhdx": TEXT * 5000, "odd.QCOW2": self.noise(3 * MB + 17),
                    "disk.vdi.locked": self.noise(MB), "disk.qcow2.[mail@example].crypt":
                    self.noise(MB), "raw.img": self.noise(MB), "vm-flat.vmdk": self.noise(MB)}
        for name, content in contents.items():
            (self.folder / name).write_bytes(content)
        for policy in ("openstack", "kubevirt", "strict"):
            code, found = self.triage("--policy", policy)
            self.assertEqual(code, 4)
            for name, content in contents.items():
                with self.subTest(name=name, policy=policy):
                    reason = self.reasons(found[name])["named-image"]
                    self.assertEqual(found[name]["verdict"], "undecidable")
                    self.assertEqual(reason.get("bytes", ""), content[:64].hex())
        says = {name: self.reasons(found[name])["named-image"]["detail"] for name in contents}
        self.assertEqual(says["empty.qcow2"], "it is empty")
        self.assertIn("zeros", says["wiped.vhd"])
        for name in ("noise.vmdk", "odd.QCOW2", "disk.vdi.locked", "raw.img"):
            self.assertIn("noise", says[name])
        self.assertIn("nothing in it is known", says["text.vhdx"])
        text = run(BIN / "imgtriage", self.folder).out
        self.assertIn("named-image", text)

    def test_the_header_alone(self):
        self.images()
        for name, length in (("disk.qcow2", 512), ("disk.qcow2", 4096), ("disk.vmdk", 65536)):
            with self.subTest(name=name, length=length):
                with open(self.folder / name, "r+b") as file:
                    file.write(self.noise(length))
                code, found = self.triage("--entropy")
                self.assertEqual(code, 4)
                document = found[name]
                self.assertIn("named-image", self.reasons(document))
                said = self.reasons(document)["named-image"]["detail"]
                self.assertEqual("begins with" in said, length >= 4096, said)
                # The rest is there and said to be.
                left = sum(piece["length"] for piece in document["entropy"]["file-plain"])
                self.assertGreater(left, 5 * MB)

    def test_the_first_mebibyte(self):
        disk = self.images()
        for name in ("disk.qcow2", "disk.vhd", "disk.raw"):
            with open(self.folder / name, "r+b") as file:
                file.write(self.noise(MB))
        code, found = self.triage("--entropy")
        self.assertEqual(code, 4)
        for name in ("disk.qcow2", "disk.vhd", "disk.raw"):
            with self.subTest(name=name):
                document = found[name]
                self.assertEqual(document["entropy"]["head"], MB)
                self.assertIn(document["attention"], ("undecidable", "damaged"))
        # The fixed VHD still says what it is: what is left of the disk is known.
        for piece in found["disk.vhd"]["entropy"]["disk-plain"]:
            self.assertGreaterEqual(piece["guest-offset"], MB)
        left = sum(p["guest-length"] for p in found["disk.vhd"]["entropy"]["disk-plain"])
        text = sum(disk[at:at + CLUSTER].count(b"plain text") > 0
                   for at in range(MB, len(disk), CLUSTER)) * CLUSTER
        self.assertGreaterEqual(left, text)
        self.assertIn("file-plain", found["disk.raw"]["entropy"])

    def test_every_other_64_kib(self):
        disk = self.images()
        for name in ("disk.qcow2", "disk.vhd"):
            path = self.folder / name
            data = bytearray(path.read_bytes())
            start = len(data) // 2 // CLUSTER * CLUSTER - 32 * CLUSTER
            for at in range(start, start + 64 * CLUSTER, 2 * CLUSTER):
                data[at:at + CLUSTER] = self.noise(CLUSTER, at)
            path.write_bytes(data)
        code, found = self.triage("--entropy")
        self.assertEqual(code, 4)
        for name in ("disk.qcow2", "disk.vhd"):
            with self.subTest(name=name):
                document = found[name]
                plan = document["entropy"]["plan"]
                self.assertEqual((plan["on"], plan["off"], plan["repeats"]), (CLUSTER, CLUSTER, 32))
                self.assertIn("encrypted by a plan", document["because"])
                out = self.folder.parent / "out.raw"
                image = self.folder / name
                qemu_img("convert", "-f", "qcow2" if name.endswith("2") else "vpc", "-O", "raw",
                         image, out)
                now = out.read_bytes()
                out.unlink()
                # What is said to be left reads as before, and all that is left is said.
                for piece in document["entropy"]["disk-plain"]:
                    at, length = piece["guest-offset"], piece["guest-length"]
                    self.assertEqual(now[at:at + length], disk[at:at + length])
                same = sum(disk[at:at + CLUSTER] == now[at:at + CLUSTER] and
                           any(disk[at:at + CLUSTER]) for at in range(0, len(disk), CLUSTER))
                left = sum(p["guest-length"] for p in document["entropy"]["disk-plain"])
                self.assertEqual(left // CLUSTER, same)


if __name__ == "__main__":
    main()
