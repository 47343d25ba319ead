#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""COW images of every layout and by uml_mkcow, damaged at random from a seed. 40 images, 1000 in a
long run; `cow_damage.py N` tries that one alone."""
import os
import random
import shutil
import sys

from imglib.cow import LAYOUTS, ORDERS, Cow
from imglib.damage_trial import DamageTrial
from imglib.programs import LONG, SANITIZED, run
from imglib.testing import main

IMAGES = 1000 if LONG else 8 if SANITIZED else 30
STAMP = 1600000000


class CowDamage(DamageTrial):
    def image(self, seed):
        rng = random.Random(f"cow damage {seed}")
        name, order = rng.choice(ORDERS + [("uml-v3", "big")] * 3)
        size = 512 * rng.randrange(1, 1200) + rng.choice((0, 0, 100))
        if LAYOUTS[name].qemu:
            size = size // 512 * 512
        self.fresh_folder()
        base, path = self.folder / "base.img", self.folder / "disk.cow"
        base.write_bytes(rng.randbytes(size))
        os.utime(base, (STAMP, STAMP))
        image = Cow(name, size, order)
        if name == "uml-v3" and rng.random() < 0.5:
            run("uml_mkcow", path, base, check=True)
            made = path.read_bytes()
            self.assertEqual(len(made), len(image.data))
            image.data[:] = made
            path.unlink()
        else:
            image.header(base, STAMP)
        image.fill(rng, rng.randrange(60))
        contents = list(image.contents())
        return image, path, f"{name} {order}", contents, image.hurt(rng)

    def by_uml(self, path):
        """The disk by uml_moo, which drops the part of a sector at the end; None: it
        refuses, or the image has lost the name of its base, which we go by."""
        if os.fsencode(self.folder / "base.img") + b"\0" not in path.read_bytes()[:4136]:
            return None
        out = self._root / "moo.raw"
        out.unlink(missing_ok=True)
        done = run("uml_moo", "-b", self.folder / "base.img", path, out)
        return out.read_bytes() if done.code == 0 else None

    def test_random_damage(self):
        mended = 0
        for seed in [SEED] if SEED else range(IMAGES):
            image, path, kind, contents, done = self.image(seed)
            with self.subTest(seed=seed, kind=kind, done=done):
                image.save(path)
                if SEED:
                    shutil.copytree(self.folder, f"cow-damage-{seed}", dirs_exist_ok=True)
                options = ["--deep", "--chain"] if seed % 2 else ["--deep"]
                # Where bits are missing at the end, uml_moo takes what happens to lie behind.
                all_bits = image.sectors <= 8 * image.bitmap_length
                codes = self.trial(path, "cow", contents, lambda path: [], options,
                                   other_view=self.by_uml if all_bits else None)
                mended += codes.count(1)
        if not SEED:  # repairs that refuse everything would pass as well
            self.assertGreater(mended, IMAGES // 6)


SEED = int(sys.argv.pop()) if len(sys.argv) == 2 and sys.argv[1].isdigit() else None

if __name__ == "__main__":
    main()
