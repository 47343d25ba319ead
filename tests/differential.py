#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""QEMU and imgfsck given the same images, sound ones that QEMU's tools made out of random requests,
and damaged ones: what a check says, where things are, what a guest reads. A few of each format from
fixed seeds, hundreds in a long run.

    differential.py --renew              writes the examples in docs/comparison.md anew
    differential.py FORMAT FIRST LAST    the images of those seeds, told in full
"""
import os
import pathlib
import random
import shutil
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from imglib.programs import LONG, SANITIZED
from imglib.referee import KNOWN, SECTION, STRICTER, Referee
from imglib.scribe import FORMATS, Fields, Scribe
from imglib.testing import ImageTest, main

IMAGES = 300 if LONG else 4 if SANITIZED else 7  # of each format
WOUNDS = 4  # each is looked at as it was made, and damaged in so many ways
PAGE = pathlib.Path(__file__).resolve().parent.parent / "docs" / "comparison.md"
RENEW = sys.argv[1:] == ["--renew"]

# What is known, by images that show it: (name, format, seed, wound).
EXAMPLES = [("stricter", "qcow2", 23, 2), ("stricter", "qcow2", 68, 2),
            ("stricter", "qcow2", 56, 4), ("stricter", "qcow2", 79, 2), ("stricter", "qcow2", 121, 1),
            ("stricter", "qcow2", 144, 1), ("stricter", "qcow2", 170, 3),
            ("stricter", "qcow2", 249, 2), ("counts-past-end", "qcow2", 255, 2), ("count-too-high", "qcow2", 10, 3),
            ("past-end", "qcow2", 0, 2), ("past-end", "qcow2", 6, 4), ("past-end", "qcow", 3, 3),
            ("refused", "qcow", 7, 1), ("refused", "vpc", 9, 4), ("refused", "vpc", 18, 2),
            ("place-not-needed", "qcow2", 20, 2), ("read-further", "qcow2", 26, 4),
            ("read-further", "vpc", 7, 1), ("sector-bitmaps", "vpc", 1, 2),
            ("two-footers", "vpc", 3, 3), ("size-policy", "vpc", 270, 1)]
# What disagreed once, by a fault of ours.
MENDED = [("qcow2", 181, 2), ("qcow2", 227, 4), ("qcow2", 241, 0), ("vpc", 316, 1)]
HEAD = SECTION + """
tests/differential.py gives QEMU's tools 7.2 and ours the same images (qcow2, qcow, vpc, raw): sound
ones that `qemu-img` and `qemu-io` made out of random requests, and damaged ones, in which one to
three fields of the metadata, or the file's length, were changed. It compares the verdict of the
check, the map, and every byte that a guest reads. About sound images they agree. About damaged ones
they disagree in these ways; every other disagreement fails the test. The bytes: where in the file,
what stood there, what stands there now. `tests/differential.py FORMAT SEED SEED+1` makes the image.

| image | bytes | QEMU | imgfsck |
| --- | --- | --- | --- |
"""


def image(root, kind, seed, wound):
    """(path, what was done to it) of the image of that seed; wound 0: sound."""
    folder = root / f"{kind}-{seed}"
    sound = folder / "sound"
    path = folder / f"disk.{kind}"
    if not sound.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        Scribe(folder, kind, seed).make()
        sound.write_bytes(path.read_bytes())
    path.write_bytes(sound.read_bytes())  # every byte of it: maps are compared without holes
    if wound == 0:
        return path, []
    return path, Fields(path, kind).injure(random.Random(f"{kind} {seed} {wound}"))


def trial(root, kind, seed):
    """[(kind, seed, wound, damage, disagreements)] of one image and its damaged versions."""
    told = []
    for wound in range(WOUNDS + 1):
        path, damage = image(root, kind, seed, wound)
        told.append((kind, seed, wound, damage, Referee(path, kind).look()))
    shutil.rmtree(root / f"{kind}-{seed}")
    return told


def trials(root, jobs):
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for told in pool.map(lambda job: trial(root, *job), jobs):
            yield from told


class Differential(ImageTest):
    on_disk = False

    def test_nobody_disagrees_unknown(self):
        jobs = [(kind, seed) for seed in range(IMAGES) for kind in FORMATS]
        seen = Counter()
        for kind, seed, wound, damage, disagreements in trials(self.folder, jobs):
            with self.subTest(kind=kind, seed=seed, wound=wound, damage=damage):
                self.assertEqual([d for d in disagreements if not d.known], [])
                if wound == 0:
                    self.assertEqual(disagreements, [], "of a sound image")
            seen[kind, bool(disagreements)] += 1
        for kind in FORMATS:  # agreement about nothing would pass as well
            self.assertGreater(seen[kind, False], seen[kind, True])

    def test_what_was_mended_is_agreed_upon(self):
        for kind, seed, wound in MENDED:
            path, damage = image(self.folder, kind, seed, wound)
            with self.subTest(kind=kind, seed=seed, wound=wound, damage=damage):
                self.assertEqual([d for d in Referee(path, kind).look() if not d.known], [])

    def test_the_page_is_true(self):
        lines = []
        self.assertEqual({name for name, *_ in EXAMPLES}, set(KNOWN))
        for name, kind, seed, wound in EXAMPLES:
            path, damage = image(self.folder, kind, seed, wound)
            referee = Referee(path, kind)
            with self.subTest(name=name, kind=kind, seed=seed, damage=damage):
                self.assertIn(name, {each.known for each in referee.look()})
            shutil.rmtree(path.parent)
            qemu, ours = KNOWN[name]
            if name == "stricter":
                ours = "; ".join(f"`{code}`: {STRICTER[code]}" for code in sorted(referee.severe & set(STRICTER)))
            lines.append(f"| {kind} {seed} | `{'; '.join(damage)}` | {qemu} | {ours} |\n")
        text = HEAD + "".join(lines)
        page = PAGE.read_text()
        if RENEW:
            page = page[:page.index(SECTION)] if SECTION in page else page
            PAGE.write_text(page + text)
        self.assertIn(text, PAGE.read_text(), "differential.py --renew accepts this")


def tell(kind, first, last):
    """By hand: what is not known, in full; the rest counted."""
    Differential.setUpClass()
    seen = Counter()
    for _, seed, wound, damage, disagreements in trials(Differential._root, [
            (kind, seed) for seed in range(int(first), int(last))]):
        seen["images"] += 1
        for each in disagreements:
            seen[each.known or "UNKNOWN"] += 1
            if not each.known or wound == 0:
                print(f"{kind} {seed} {wound} {damage}\n  {each.what}\n    QEMU: {each.qemu}\n"
                      f"    ours: {each.ours}", flush=True)
    Differential.tearDownClass()
    print(dict(seen))


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] in FORMATS:
        tell(*sys.argv[1:])
    else:
        if RENEW:
            sys.argv[1:] = ["Differential.test_the_page_is_true"]
        main()
