#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every invariant of VHDs, broken on an image laid out as one of the programs does: it is found with
its severity, each repair does about it what it should, the disk reads afterwards as it has to, QEMU
opens it, a second repair has nothing to do, and the rollback is exact."""
import random

from imglib.programs import check_json, folder_state, imgfsck, run
from imglib.testing import ImageTest, codes, main, summary
from imglib.vhd import SECTOR, Vhd, Writer, geometry, random_disk
from imglib.vhd_cases import CASES
from lost_map import read_map

KB = 1024
BLOCK = 64 * KB
OPTIONS = ("--format", "vpc", "--deep")


def fixed(program="qemu"):
    chance = random.Random(program)
    return Writer(program, 512 * KB, BLOCK, 77).fixed(bytes(3 * SECTOR) + chance.randbytes(20000))


def seed_fixed():
    """As the QEMU of 2012 made fixed disks: the file as long as asked for, the geometry rounded up."""
    v, size = fixed("qem2"), 512 * KB
    cylinders, heads, sectors = geometry(size // SECTOR)
    v.set_footer(creator=b"qemu", cylinders=cylinders + 1, heads=heads, sectors=sectors)
    return v


def bases():
    """name -> (sound image, the parent's content, the parent's file)."""
    chance = random.Random("rows")
    parent = random_disk(chance, "qem2", 10 * BLOCK + 1024, BLOCK, 0.9)
    link = ("base.vhd", parent.footer.uuid, 0)
    sparse = {name: random_disk(chance, program, 10 * BLOCK + 1024, BLOCK, 0.6)
              for name, program in (("dynamic", "qem2"), ("win", "win"), ("tap", "tap"))}
    child = random_disk(chance, "win", 10 * BLOCK + 1024, BLOCK, 0.5, link)
    empty = Writer("qem2", 400 * BLOCK, BLOCK, 5).sparse({}, [])
    images = {**sparse, "fixed": fixed(), "seed-fixed": seed_fixed(), "empty": empty}
    result = {name: (v, b"", None) for name, v in images.items()}
    result["child"] = (child, parent.read(), parent)
    return result


class VhdRows(ImageTest):
    on_disk = False

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.bases = bases()

    def image(self, case):
        self.fresh_folder()
        sound, content, parent = self.bases[case.base]
        v = Vhd(sound.data)
        case.damage(v)
        path = self.folder / "disk.vhd"
        path.write_bytes(v.data)
        if parent:
            (self.folder / "base.vhd").write_bytes(parent.data)
        return path, v, sound, content

    def test_every_row_has_a_case(self):
        chain = {75, 76, 78, 79, 80, 81, 82}  # need more than one file: chain tests
        self.assertEqual({case.row for case in CASES} | chain, set(range(1, 83)))

    def test_sound_images_are_clean(self):
        for name, (v, _, parent) in self.bases.items():
            if name == "seed-fixed":
                continue
            with self.subTest(base=name):
                self.fresh_folder()
                path = self.folder / "disk.vhd"
                path.write_bytes(v.data)
                if parent:
                    (self.folder / "base.vhd").write_bytes(parent.data)
                code, document = check_json(path, *OPTIONS[2:])
                self.assertEqual(code, 0, summary(document))
                grave = codes(document) - {"vhd-dyn-block-size"}
                self.assertFalse([f for f in document["findings"] if f["code"] in grave
                                  and f["severity"] != "info"], summary(document))

    def test_found(self):
        for case in CASES:
            with self.subTest(case=case.name, row=case.row):
                path, *_ = self.image(case)
                before = folder_state(self.folder)
                _, document = check_json(path, *OPTIONS)
                found = [f["severity"] for f in document["findings"] if f["code"] == case.code]
                infos = [t["code"] for t in document["totals"]]
                if case.severity == "info":
                    self.assertIn(case.code, infos)
                else:
                    self.assertIn(case.severity, found, summary(document))
                self.assertEqual(folder_state(self.folder), before)

    def test_repaired(self):
        for case in CASES:
            for mode, expected in (("safe", case.safe), ("all", case.all)):
                with self.subTest(case=case.name, row=case.row, mode=mode):
                    self.repair(case, mode, expected)

    def repair(self, case, mode, expected):
        path, hurt, sound, parent = self.image(case)
        lost_map = ["--lost-map", self.folder / "lost.map"] if case.content == "lost" else []
        code, document = check_json(path, *OPTIONS, f"--repair={mode}", *lost_map)
        self.assertIn(code, (0, 1, 4), summary(document))
        left = {f["code"] for f in document["findings"]
                if not f["fixed"] and f["severity"] == case.severity}
        if case.severity == "info":
            self.assertEqual(code, 0, summary(document))
        elif expected == "mended":
            self.assertNotIn(case.code, left, summary(document))
        else:
            self.assertIn(case.code, left, summary(document))
        repaired = Vhd(path.read_bytes())
        self.assert_content(case, mode, expected, document, (hurt, sound, repaired), parent)
        grave = any(f["severity"] == "corruption" and not f["fixed"] for f in document["findings"])
        # QEMU opens no disk without a size, and takes what a guest wrote for a footer.
        if not grave and case.row not in (18, 25):
            run("qemu-img", "info", "-f", "vpc", path, check=True)
        after = folder_state(self.folder)
        again, second = check_json(path, *OPTIONS, f"--repair={mode}")
        self.assertEqual(again, 4 if code == 4 else 0, summary(second))
        self.assertEqual(folder_state(self.folder), after, "the second repair wrote something")
        undo = path.with_name(path.name + ".imgfsck-undo")
        if undo.exists():
            self.assertEqual(imgfsck("--rollback", undo, path).code, 0)
        self.assertEqual(path.read_bytes(), bytes(hurt.data))

    def assert_content(self, case, mode, expected, document, images, parent):
        hurt, sound, repaired = images
        old, new = hurt.read("qemu"), repaired.read("qemu")
        if mode == "safe" and old is not None:
            self.assertIsNotNone(new)
            self.assertEqual(old, new[:len(old)], "QEMU's guest reads other bytes")
        if expected != "mended" or case.content == "any":
            return
        want, got = sound.read("spec", parent), repaired.read("spec", parent)
        self.assertIsNotNone(got)
        lost = [(r["guest-offset"], r["guest-offset"] + r["guest-length"])
                for r in document["repair"]["lost"]]
        if case.content == "same":
            self.assertEqual([r for r in lost if r[0] < len(want)], [])
        else:
            self.assertTrue(lost, "nothing is said to be lost")
            # The same ranges for ddrescue.
            mapped = [(start, start + length) for start, length, status in
                      read_map(self.folder / "lost.map")[0] if status == "-"]
            for start, end in lost:
                if start >= len(got):  # behind the end that the disk has now
                    continue
                self.assertTrue(any(a <= start and end <= b for a, b in mapped), (lost, mapped))
        for at in range(0, len(want), SECTOR):
            if want[at:at + SECTOR] != got[at:at + SECTOR]:
                self.assertTrue(any(a <= at < b for a, b in lost), f"the sector at {at} differs")


if __name__ == "__main__":
    main()
