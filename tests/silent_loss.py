#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Small overwrites of metadata (imglib/scratch.py), from a seed, repaired with `safe`, with `all`
and with one after the other. No guest byte of the disk or of a snapshot reads otherwise without a
word: `all` lists it as lost, or a finding is left that names it, or clusters were found without an
owner. `safe` leaves what could be read; what could be read rightly is never listed away silently.
Exit 0 or 1: QEMU's check agrees, and no metadata has a second owner. `silent_loss.py A-B`: these."""
import sys

from imglib.claims import Claims
from imglib.programs import LONG, check_json, copy, qemu_check
from imglib.qcow2 import Qcow2
from imglib.scratch import SHAPES, SNAPSHOTS, Maker, differences, scratched, view
from imglib.testing import ImageTest, main, summary

# Seeds that once failed.
FOUND = (21, 34, 35)
# Something is lost, and nobody can know where it was; or what would have told is lost as well.
TELLING = {"qcow2-refcount-leak", "qcow2-refcount-zero-used", "qcow2-snap-table-past-eof",
           "qcow2-hdr-magic"}


def named(documents):
    """layer -> [(begin, end)] of the guest that the documents speak of."""
    ranges = {}
    for document in documents:
        claims = [(finding.get("layer", ""), claim) for finding in document["findings"]
                  for claim in [finding, *finding["also"]] if "guest-offset" in claim]
        claims += [(lost["layer"], lost) for lost in document.get("repair", {}).get("lost", [])]
        for layer, claim in claims:
            ranges.setdefault(claim.get("layer", layer), []).append(
                (claim["guest-offset"], claim["guest-offset"] + claim["guest-length"]))
    return ranges


class SilentLoss(ImageTest):
    on_disk = False

    def base(self, shape):
        """(home of the sound image, what its disk and its snapshots show)."""
        if shape not in self._bases:
            home = self._root / f"scratch{len(self._bases)}"
            home.mkdir()
            path = Maker(home, shape).make()
            names = [None, *(SNAPSHOTS if "snapshots" in shape.features else ())]
            self._bases[shape] = home, {n: view(path, self._root / "v.raw", n) for n in names}
        return self._bases[shape]

    def test_scratches(self):
        for seed in SEEDS or (range(400) if LONG else FOUND):
            shape = SHAPES[seed % len(SHAPES)]
            home, sound = self.base(shape)
            self.fresh_folder()
            damaged = self.folder / "damaged.qcow2"
            done = scratched(home, damaged, seed)
            with self.subTest(seed=seed, shape=shape, done=done):
                # A data file whose name is lost QEMU wants to be told.
                self.names_all = "data-file" not in shape.features
                self.one(damaged, sound)

    def views(self, path, sound):
        return {name: view(path, self._root / "v.raw", name) for name in sound}

    def one(self, damaged, sound):
        code, before = check_json(damaged, "--format", "qcow2", timeout=60)
        self.assertIn(code, (0, 4), summary(before))
        was = self.views(damaged, sound)
        path = self.folder / "disk.qcow2"
        for modes in (("safe",), ("all",), ("safe", "all")):
            with self.subTest(modes=modes):
                copy(damaged, path)
                documents = []
                for mode in modes:
                    code, document = check_json(path, "--format", "qcow2", "--no-undo",
                                                f"--repair={mode}", timeout=60)
                    self.assertIn(code, (0, 1, 4), summary(document))
                    documents.append(document)
                if code in (0, 1):
                    self.whole(path, document)
                now = self.views(path, sound)
                if modes == ("safe",):
                    self.kept(was, now, sound, document)
                else:
                    documents.append(check_json(path, "--format", "qcow2")[1])
                    self.told(was, now, sound, before, documents)

    def whole(self, path, document):
        # Without its backing file QEMU does not look at an image.
        if not any(f["code"].startswith("qcow2-backing") for f in document["findings"]):
            code, found = qemu_check(path)
            if found or self.names_all:
                self.assertEqual(code, 0, summary(document))
        with Qcow2(path) as image:
            twice = Claims(image).double_owned().values()
            self.assertEqual([c for c in twice if {k.kind for k in c} != {"data"}], [])

    def kept(self, was, now, sound, document):
        """What a snapshot showed by mistake may come back."""
        for name, old in was.items():
            if old is None or (name and now[name] is None):
                continue
            self.assertIsNotNone(now[name], (name, summary(document)))
            changed = differences(old, now[name])
            if name:
                right = set(differences(sound[name], now[name]))
                changed = [at for at in changed if at in right]
            self.assertEqual([hex(at) for at in changed[:5]], [], (name, summary(document)))

    def told(self, was, now, sound, before, documents):
        ranges = named(documents)
        codes = {finding["code"] for finding in before["findings"]}
        for name, old in sound.items():
            if now[name] is None:
                # Snapshots may be found under other names.
                self.assertTrue(name or was[name] is None or documents[-1]["corruptions"],
                                "it can no longer be opened")
                continue
            known = ranges.get(SNAPSHOTS.get(name, "active"), [])
            silent = [at for at in differences(old, now[name])
                      if not any(begin < at + 512 and at < end for begin, end in known)]
            if was[name] is not None:  # what the damage had left alone
                worse = set(differences(was[name], now[name])) - set(differences(old, was[name]))
                self.assertEqual([hex(at) for at in silent if at in worse][:5], [],
                                 (name, summary(before), summary(documents[-1])))
            if not codes & TELLING:
                self.assertEqual([hex(at) for at in silent[:5]], [], (name, summary(before)))


SEEDS = []
if len(sys.argv) == 2 and sys.argv[1].replace("-", "").isdigit():
    FIRST, _, LAST = sys.argv.pop().partition("-")
    SEEDS = range(int(FIRST), int(LAST or FIRST) + 1)

if __name__ == "__main__":
    main()
