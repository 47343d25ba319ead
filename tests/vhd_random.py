#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""VHDs of all kinds and makers, damaged from a seed, checked and repaired: 100 images, 1000 in a
long run, `vhd_random.py N` for one alone. After every repair: the disk reads as before the damage, or
as the damaged image read, or the report names the range; no data that was in the file is gone from
it; a second repair has nothing to do; the rollback is exact."""
import random
import sys

from imglib.programs import LONG, SANITIZED, check_json, folder_state, imgfsck, run
from imglib.testing import ImageTest, main, summary
from imglib.vhd import SECTOR, Vhd
from imglib.vhd_damage import Patient

IMAGES = 1000 if LONG else 12 if SANITIZED else 50
OPTIONS = ("--format", "vpc", "--deep")


def sectors(data):
    return {bytes(data[at:at + SECTOR]) for at in range(0, len(data) - SECTOR + 1, SECTOR)}


def ranges_named(*documents):
    """(start, end) of the guest ranges that a report says are damaged or lost."""
    found = []
    for document in documents:
        grave = [f for f in document["findings"] if f["severity"] == "corruption"]
        for item in grave + document.get("repair", {}).get("lost", []):
            for claim in [item, *item.get("also", [])]:
                if "guest-offset" in claim:
                    start = claim["guest-offset"]
                    found.append((start, start + claim["guest-length"]))
    return found


class VhdRandom(ImageTest):
    on_disk = False

    def image(self, seed):
        self.fresh_folder()
        patient = Patient(random.Random(f"vhd {seed}"))
        if patient.base:
            (self.folder / "base.vhd").write_bytes(patient.base.data)
        names, redundant = patient.injure()
        path = self.folder / "disk.vhd"
        path.write_bytes(patient.hurt.data)
        return path, patient, names, redundant

    def seeds(self):
        return [int(SEED)] if SEED else range(IMAGES)

    def test_repairs(self):
        mended = 0
        for seed in self.seeds():
            for mode in ("safe", "all"):
                path, patient, names, redundant = self.image(seed)
                with self.subTest(seed=seed, kind=patient.kind, damage=names, mode=mode):
                    mended += self.repair(path, patient, mode, redundant) == 1
        if not SEED:  # repairs that refuse everything would pass as well
            self.assertGreater(mended, IMAGES // 2)

    def repair(self, path, patient, mode, redundant):
        before = folder_state(self.folder)
        code, checked = check_json(path, *OPTIONS)
        self.assertIn(code, (0, 4), summary(checked))
        self.assertEqual(folder_state(self.folder), before, "a check wrote something")
        code, document = check_json(path, *OPTIONS, f"--repair={mode}")
        self.assertIn(code, (0, 1, 4), summary(document))
        after = folder_state(self.folder)
        repaired = Vhd(path.read_bytes())
        self.assert_nothing_destroyed(patient, repaired)
        self.assert_content(patient, repaired, mode, ranges_named(checked, document))
        if code == 1:
            self.assert_mended(path, patient, repaired, redundant)
        again, second = check_json(path, *OPTIONS, f"--repair={mode}")
        self.assertEqual(folder_state(self.folder), after, "the second repair wrote something")
        self.assertEqual(again, 4 if code == 4 else 0, summary(second))
        undo = path.with_name(path.name + ".imgfsck-undo")
        if after[path.name].digest != before[path.name].digest:
            self.assertEqual(imgfsck("--rollback", undo, path).code, 0)
            self.assertEqual(path.read_bytes(), bytes(patient.hurt.data))
        else:
            self.assertFalse(undo.exists())
        return code

    def assert_nothing_destroyed(self, patient, repaired):
        """Each sector of data that the damage left is in the repaired file."""
        kept = sectors(repaired.data)
        begin = patient.sound.batmap_at if patient.sparse else 0
        for at in range(begin, min(len(patient.hurt.data), patient.sound.end) - SECTOR + 1, SECTOR):
            sector = bytes(patient.hurt.data[at:at + SECTOR])
            data = sector.count(sector[0]) != SECTOR and sector[:8] not in (b"conectix", b"tdbatmap")
            if data and sector == patient.sound.data[at:at + SECTOR]:
                if len(set(sector)) > 100:  # guest data is random, metadata is not
                    self.assertIn(sector, kept, f"the sector at {at} is gone")

    def assert_content(self, patient, repaired, mode, named):
        views = [patient.hurt.read("qemu", patient.parent), *self.as_damaged(patient)]
        now = {view: repaired.read(view, patient.parent) for view in ("qemu", "spec")}
        if mode == "safe" and views[0] is not None:
            self.assertIsNotNone(now["qemu"], "QEMU opened it before")
            self.assert_equal_but(views[0], now["qemu"], self.wiped(patient))
        sound = patient.sound.read("spec", patient.parent)
        if now["spec"] is None:
            return
        if patient.kind == "fixed":
            sound = sound[:patient.shortest // SECTOR * SECTOR]  # nobody knows what was behind
        for at in range(0, len(sound), SECTOR):
            sector = now["spec"][at:at + SECTOR]
            same = any(v is not None and v[at:at + SECTOR] == sector for v in [sound, *views])
            if not same and not any(start <= at < end for start, end in named):
                self.fail(f"the guest's sector at {at} reads otherwise, and no word of it")

    @staticmethod
    def as_damaged(patient):
        """What the damaged table shows to somebody whom header and footers do not stop."""
        if not patient.sparse:
            return [patient.hurt.read("spec")]
        size = len(patient.sound.read())
        return [patient.hurt.read_blocks(patient.sound.header, size, view, patient.kind == "child",
                                         patient.parent) for view in ("spec", "qemu")]

    def wiped(self, patient):
        """Ranges whose entry names the first sector: QEMU shows metadata there, nobody's data."""
        if not patient.sparse:
            return []
        block_size, entries = patient.sound.header.block_size, patient.sound.header.entries
        return [(i * block_size, (i + 1) * block_size) for i in range(entries)
                if not any(patient.hurt.data[1536 + 4 * i:1540 + 4 * i])]

    def assert_equal_but(self, old, new, exempt):
        self.assertGreaterEqual(len(new), len(old))
        for at in range(0, len(old), SECTOR):
            if old[at:at + SECTOR] != new[at:at + SECTOR]:
                self.assertTrue(any(start <= at < end for start, end in exempt),
                                f"QEMU's guest reads other bytes at {at}")

    def assert_mended(self, path, patient, repaired, redundant):
        code, document = check_json(path, *OPTIONS)
        self.assertEqual(code, 0, summary(document))
        raw = self._root / "raw"
        run("qemu-img", "convert", "-f", "vpc", "-O", "raw", path, raw, check=True)
        self.assertEqual(raw.read_bytes(), repaired.read("qemu"))
        if redundant:
            sound = patient.sound.read("spec", patient.parent)
            self.assertEqual(repaired.read("spec", patient.parent), sound)


SEED = sys.argv.pop() if len(sys.argv) == 2 and sys.argv[1].isdigit() else None

if __name__ == "__main__":
    main()
