#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Images damaged several times over, from a seed: recipes on top of one another and bytes scribbled
over metadata. The check ends, writes nothing and says the same with one thread as with several; the
repairs hold to what every repair is held to. 60 images, 2000 in a long run; `random_damage.py
[RandomDamage.test_repair] A-B`: these."""
import random
import sys

from imglib import patient
from imglib.make import Recipe
from imglib.patient import RECIPES, Patient, Unfit
from imglib.programs import LONG, SANITIZED, ToolFailed, check_json, copy, folder_state
from imglib.roundtrip import RoundtripTest, snapshots_to_compare
from imglib.testing import main, summary

IMAGES = 2000 if LONG else 10 if SANITIZED else 100
FOUND = () if LONG or SANITIZED else (1233, 1831)  # seeds that once failed
BASES = [Recipe("plain"), Recipe("plain", "v2"), Recipe("plain", "v3", 512, 1),
         Recipe("snapshots"), Recipe("snapshots", "v3", 4096, 2), Recipe("snapshots", "v2", 512),
         Recipe("zlib"), Recipe("extended-l2", "v3", 16384), Recipe("bitmaps"),
         Recipe("bitmaps", "v3", 512, 64), Recipe("backing"), Recipe("data-file")]
METADATA = ("header", "l1", "snapshot-l1", "l2", "refcount-table", "refcount-block",
            "snapshot-table", "bitmap-directory", "bitmap-table")


def scribble(path, chance, sound):
    """Overwrites some bytes of a random metadata cluster."""
    hurt = Patient(path, chance.random(), sound)
    try:
        kind = chance.choice(METADATA)
        place = hurt.cluster_of(kind) << hurt.cluster_bits
        length = chance.choice((1, 1, 2, 8, 8, 64, 512))
        start = place + chance.randrange(8 if kind == "header" else 0, hurt.cluster_size)
        data = chance.choice((bytes(length), b"\xff" * length, chance.randbytes(length)))
        hurt.put(start, data)
    finally:
        hurt.close()


def injure(path, chance, sound):
    """Damages the image one to four times; returns what was done. What does not fit is left out."""
    done = []
    for _ in range(chance.randint(1, 4)):
        name = chance.choice(sorted(RECIPES)) if chance.random() < 0.7 else "scribble"
        try:
            if name == "scribble":
                scribble(path, chance, sound)
            else:
                patient.apply(name, path, chance.getrandbits(32), sound)
            done.append(name)
        except (Unfit, ToolFailed):  # the latter: a recipe that needs QEMU to open the image
            continue
    return done


def qemu_opens(base, done):
    """Of a lost header the data file's name is lost as well: QEMU has to be told it."""
    nameless = base.content == "data-file" and any(name.startswith("start-") for name in done)
    return not nameless and not {"backing-missing", "hdr-raw-backing"} & set(done)


class RandomDamage(RoundtripTest):
    def image(self, seed):
        self.fresh_folder()
        chance = random.Random(f"random damage {seed}")
        base = chance.choice(BASES)
        path, sound = self.sound(base), self._root / "sound.qcow2"
        copy(path, sound)
        return path, base, injure(path, chance, sound)

    def seeds(self):
        """`random_damage.py A-B` or `N` on the command line runs those alone."""
        return SEEDS or [*range(IMAGES), *FOUND]

    def test_check(self):
        for seed in self.seeds():
            path, base, done = self.image(seed)
            with self.subTest(seed=seed, base=base.content, done=done):
                before = folder_state(self.folder)
                code, one = check_json(path, "--format", "qcow2", "--threads", "1", timeout=60)
                self.assertIn(code, (0, 4), summary(one))
                self.assertEqual(check_json(path, "--format", "qcow2", "--threads", "3"),
                                 (code, one))
                self.assertEqual(folder_state(self.folder), before)

    def test_repair(self):
        mended = 0
        for seed in self.seeds():
            for mode in ("safe", "all"):
                path, base, done = self.image(seed)
                with self.subTest(seed=seed, base=base.content, done=done, mode=mode):
                    code = self.roundtrip(
                        path, mode, ("--format", "qcow2"),
                        snapshots=snapshots_to_compare(base, done),
                        for_qemu=qemu_opens(base, done))
                    mended += code == 1
        if not SEEDS:  # repairs that refuse everything would pass as well
            self.assertGreater(mended, IMAGES // 4)


SEEDS = ()
if len(sys.argv) > 1 and sys.argv[-1].replace("-", "").isdigit():
    FIRST, _, LAST = sys.argv.pop().partition("-")
    SEEDS = range(int(FIRST), int(LAST or FIRST) + 1)

if __name__ == "__main__":
    main()
