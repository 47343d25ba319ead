#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""qcow version 1 images of every kind, made by QEMU and by imgio and damaged at random from a seed.
40 images, 1000 in a long run; `qcow1_damage.py N` tries that one alone."""
import random
import shutil
import sys

from imglib.damage_trial import DamageTrial
from imglib.programs import BIN, LONG, SANITIZED, SECRET, copy, run, secret_options
from imglib.qcow1 import Qcow1
from imglib.testing import main

IMAGES = 1000 if LONG else 8 if SANITIZED else 30
SIZE = 600 * 1024 + 3 * 512
KEY = "password"
# Maker, cluster_bits, l2_bits, what it is besides. QEMU chooses the numbers itself.
KINDS = [("qemu", 12, 9, ""), ("qemu", 12, 9, "encrypted"), ("qemu", 12, 9, "compressed"),
         ("qemu", 9, 12, "backing"), ("qemu", 9, 12, "backing compressed"),
         ("imgio", 9, 6, ""), ("imgio", 12, 6, "compressed"), ("imgio", 16, 13, ""),
         ("imgio", 10, 7, "encrypted"), ("imgio", 12, 6, "backing"), ("imgio", 9, 7, "compressed"),
         ("imgio", 11, 6, "backing compressed encrypted")]


class Qcow1Damage(DamageTrial):
    def target(self, path, what):
        if "encrypted" not in what:
            return ["-f", "qcow", str(path)]
        return secret_options() + ["--image-opts", "driver=qcow,encrypt.format=aes,"
                                   f"encrypt.key-secret=key,file.filename={path}"]

    def make(self, kind):
        """A sound image in a folder of its own, with the files it builds on."""
        maker, bits, l2_bits, what = kind
        home = self._root / f"sound{KINDS.index(kind)}"
        home.mkdir()
        rng = random.Random(f"{kind}")
        path = home / "disk.qcow"
        (home / "base.img").write_bytes(rng.randbytes(SIZE - 1000))
        (home / KEY).write_text(SECRET)
        options = f"cluster_bits={bits},l2_bits={l2_bits}" if maker == "imgio" else ""
        options += ",encryption=on" if maker == "imgio" and "encrypted" in what else ""
        base = ["-b", home / "base.img" if maker == "imgio" else "base.img", "-F", "raw"]
        base = base if "backing" in what else []
        key = ["--password-file", home / KEY] if "encrypted" in what else []
        if maker == "imgio":
            extra = ["-o", options, *(["-b", "base.img", "-F", "raw"] if base else []), *key]
            run(BIN / "imgio", "create", "-f", "qcow", *extra, path, SIZE, check=True)
        else:
            extra = secret_options() + ["-o", "encrypt.format=aes,encrypt.key-secret=key"]
            extra = extra if "encrypted" in what else []
            run("qemu-img", "create", "-q", "-f", "qcow", *base, *extra, path, SIZE, check=True)
        words = []
        for number in range(30):
            at = rng.randrange(SIZE >> bits) << bits
            length = min(1 << bits, SIZE - at)
            (home / "piece").write_bytes(rng.randbytes(length))
            if "compressed" in what and number % 2 and length == 1 << bits:
                # Something to compress, and not the same twice.
                (home / "piece").write_bytes(rng.randbytes(97) * (length // 97 + 1))
                words.append(f"write -c -s {home / 'piece'} {at} {length}")
            else:
                words.append(f"write -s {home / 'piece'} {at} {length}")
            if "encrypted" in what and maker == "imgio" or number % 5 == 4:
                flag = ["--compressed"] if " -c " in words[-1] and not key else []
                piece = home / "part"
                piece.write_bytes((home / "piece").read_bytes()[:length])
                run(BIN / "imgio", "write", *flag, *key, path, at, "--from", piece, check=True)
            else:
                run("qemu-io", "-c", words[-1], *self.target(path, what), check=True)
        (home / "piece").unlink()
        (home / "part").unlink(missing_ok=True)
        return home

    def image(self, seed):
        rng = random.Random(f"qcow damage {seed}")
        kind = rng.choice(KINDS)
        if kind not in self._bases:
            self._bases[kind] = self.make(kind)
        self.fresh_folder()
        for file in self._bases[kind].iterdir():
            copy(file, self.folder / file.name)
        image = Qcow1(self.folder / "disk.qcow")
        return image, kind, image.hurt(rng)

    def by_qemu(self, what):
        def view(path):
            raw = self._root / "qemu.raw"
            raw.unlink(missing_ok=True)
            done = run("qemu-img", "convert", "-O", "raw", *self.target(path, what), raw)
            return raw.read_bytes() if done.code == 0 else None
        return view

    def test_random_damage(self):
        mended = 0
        for seed in [SEED] if SEED else range(IMAGES):
            image, kind, done = self.image(seed)
            with self.subTest(seed=seed, kind=kind, done=done):
                contents = image.contents()
                image.save()
                if SEED:
                    shutil.copytree(self.folder, f"qcow-damage-{seed}", dirs_exist_ok=True)
                key = ["--password-file", self.folder / KEY] if "encrypted" in kind[3] else []
                codes = self.trial(image.path, "qcow", contents,
                                   lambda path: Qcow1(path).owned_twice(), ["--deep", *key], key,
                                   self.by_qemu(kind[3]))
                mended += codes.count(1)
        if not SEED:  # repairs that refuse everything would pass as well
            self.assertGreater(mended, IMAGES // 3)


SEED = int(sys.argv.pop()) if len(sys.argv) == 2 and sys.argv[1].isdigit() else None

if __name__ == "__main__":
    main()
