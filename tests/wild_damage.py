#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Images of mixed features after accidents (imglib/wild.py), from a seed, repaired with `safe` and
with `all`. Exit 1: nothing is left, by our check, by QEMU's, and by a count of the references that
shares no code with either. `safe` leaves every guest byte that could be read as it was; whatever
the mode, what was stored for the guest is still in the file, a second repair does nothing, and a
rollback gives the damaged file back. 16 images, 400 in a long run; `wild_damage.py A-B`: these."""
import random
import sys

from imglib.claims import Claims
from imglib.damage_trial import readable_equal
from imglib.programs import (BIN, LONG, SANITIZED, SECRET, check_json, copy, file_state,
                             guest_digest, imgfsck, qemu_check, run)
from imglib.qcow2 import COMPRESSED, OFFSET_MASK, Qcow2
from imglib.roundtrip import aliases, one_a_layer
from imglib.testing import ImageTest, main, summary
from imglib.wild import MIXES, WildMaker, hurt

IMAGES = 400 if LONG else 4 if SANITIZED else 12
# Seeds that once failed.
FOUND = () if LONG or SANITIZED else (80, 95, 122, 142, 392, 399, 650, 717, 790)


def stored_pieces(path):
    """(place, bytes) of what the image stores for the guest: data clusters and streams."""
    pieces = {}
    with Qcow2(path) as image:
        if image.data_file:
            return []
        for layer, _, _ in image.layers():
            for slot in image.slots(layer):
                if slot.entry & COMPRESSED:
                    place, length = image.compressed_span(slot.entry)
                elif slot.entry & OFFSET_MASK:
                    place, length = slot.entry & OFFSET_MASK, image.cluster_size
                else:
                    continue
                data = image.read(place, min(length, image.file_size - place))
                if data.strip(b"\0"):
                    pieces[place] = data
    return sorted(pieces.items())


def hidden_aliases(document, image):
    """Those of snapshots that nothing listed before the repair."""
    hidden = {s.id for s in image.snapshots if s.name.startswith("recovered-")}
    return {f["host-offset"] for f in document["findings"]
            if f["code"] == "qcow2-cross-layer-alias"
            and hidden & {f["layer"], *(other["layer"] for other in f["also"])}}


class WildDamage(ImageTest):
    on_disk = False

    def image(self, seed):
        """(damaged image, its mix, what was done, pieces of the guest's that are still there)."""
        chance = random.Random(f"wild {seed}")
        mix = MIXES[seed % len(MIXES)]
        if mix not in self._bases:
            home = self._root / f"wild{len(self._bases)}"
            home.mkdir()
            WildMaker(home / "disk.qcow2", mix, 1).make()
            self._bases[mix] = home, stored_pieces(home / "disk.qcow2")
        home, pieces = self._bases[mix]
        self.fresh_folder()
        path = self.folder / "disk.qcow2"
        sound, earlier = home / "disk.qcow2", home / "disk.qcow2.earlier"
        copy(sound, path)
        done = hurt(path, sound, earlier, chance)
        damaged = path.read_bytes()
        return path, mix, done, [p for at, p in pieces if damaged[at:at + len(p)] == p]

    def guest(self, path, luks):
        """What can be read, by imgio, with what cannot; None when it does not open."""
        raw, key = self._root / "guest.raw", self._root / "key"
        key.write_text(SECRET)
        words = ["--password-file", key] if luks else []
        done = run(BIN / "imgio", "convert", "--force", "--salvage", "-f", "qcow2", *words, path,
                   raw)
        if done.code not in (0, 4):
            return None
        lost = [tuple(map(int, line.split()[1:])) for line in done.out.splitlines()
                if line.startswith("lost ")]
        return bytearray(raw.read_bytes()), lost

    def views(self, path, mix):
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(32)[24:32], "big")
        if size > 512 << 20:
            return None, None
        luks = "luks" in mix.features
        return self.guest(path, luks), guest_digest(path, luks)

    def test_accidents(self):
        mended = 0
        for seed in SEEDS or [*range(IMAGES), *FOUND]:
            for mode in ("safe", "all"):
                path, mix, done, pieces = self.image(seed)
                with self.subTest(seed=seed, mix=mix, done=done, mode=mode):
                    mended += self.one(path, mix, mode, pieces) == 1
        if not SEEDS:
            self.assertGreaterEqual(mended, IMAGES // 2)

    def one(self, path, mix, mode, pieces):
        options = ("--format", "qcow2", "--deep")
        luks = "luks" in mix.features
        before, views = file_state(path), self.views(path, mix)
        was, damaged = check_json(path, *options, timeout=60)
        self.assertIn(was, (0, 4), summary(damaged))
        code, document = check_json(path, *options, f"--repair={mode}", timeout=60)
        self.assertIn(code, (0, 1, 4), summary(document))
        after = file_state(path)
        mended = path.read_bytes()
        self.assertEqual([len(p) for p in pieces if p not in mended], [],
                         "data of the guest is nowhere in the file")
        left_code, left = check_json(path, *options)
        if code == 1:
            self.assertEqual(left_code, 0, summary(left))
            qemu_code, qemu = qemu_check(path, luks)
            self.assertEqual(qemu_code, 0, qemu)
            with Qcow2(path) as image:
                claims = Claims(image)
                counts = claims.counts()
                self.assertEqual((counts.leaks, counts.low), ({}, {}))
                known = aliases(damaged) & aliases(left) | hidden_aliases(left, image)
                self.assertEqual([found for cluster, found in claims.double_owned().items()
                                  if cluster * image.cluster_size not in known
                                  or not one_a_layer(found)], [])
        now = self.views(path, mix)
        if mode == "safe" and views[0]:
            self.assertTrue(now[0] and readable_equal(views[0], now[0]), "other bytes are read")
        if mode == "safe" and views[1]:
            self.assertEqual(now[1], views[1], "QEMU reads other bytes")
        if views[0] and not views[0][1] and mode == "all":
            self.assertTrue(now[0] or code == 0, "it can no longer be opened")
        if views[1]:
            self.assertIsNotNone(now[1], "QEMU can no longer read it")
        again, second = check_json(path, *options, f"--repair={mode}")
        self.assertEqual(file_state(path), after, "the second repair wrote something")
        self.assertEqual(again, 4 if code == 4 else 0, summary(second))
        undo = path.with_name(path.name + ".imgfsck-undo")
        self.assertEqual(undo.exists(), after.digest != before.digest)
        if undo.exists():
            self.assertEqual(imgfsck("--rollback", undo, path).code, 0)
            state = file_state(path)
            self.assertEqual((state.digest, state.size), (before.digest, before.size))
        return code


SEEDS = []
if len(sys.argv) == 2 and sys.argv[1].replace("-", "").isdigit():
    FIRST, _, LAST = sys.argv.pop().partition("-")
    SEEDS = range(int(FIRST), int(LAST or FIRST) + 1)

if __name__ == "__main__":
    main()
