#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`--lost-map` of every damaged image against the truth: the sound image's guest bytes compared with
what QEMU reads of the damaged one, in the disk and in every snapshot. Whatever reads otherwise is in
the map; what is in the map reads otherwise, as far as anybody can know it. GNU ddrescue's own program
takes the map."""
import re

from imglib.patient import RECIPES
from imglib.programs import check_json, imgfsck, luks_target, run
from imglib.testing import ImageTest, main, sample, summary

# Nothing in the image says that these happened.
UNKNOWABLE = {
    "leak-lost-mapping",   # a cluster unmapped, as by a discard
    "data-hole",           # as by a discard
    "l2-tail-short",       # a file may end inside its last cluster
    "extl2-compr-bitmap",  # these two write guest data before they damage it
    "compr-plaintext",
    "ext-duplicate-other",  # of two formats for the backing file QEMU takes the one that fails
}
TOO_LARGE = {"start-64k-large"}  # a disk of 1.2 TiB is not read as a whole
# All that hangs on what is damaged is listed; what of it reads rightly nobody can tell.
WIDE = {"hdr-extended-l2-lost", "meta-overlap-snapshot-l1"}
FOUND = {"l1-entry-zeroed", "luks-length-sector"}  # what once was wrong
SECTOR = 512


def merged(ranges):
    """The same as (start, end), in order, without gaps of nothing between them."""
    found = []
    for start, length in sorted(ranges):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], start + length))
        elif length:
            found.append((start, start + length))
    return found


def sectors(ranges):
    return {at for start, length in ranges for at in range(start // SECTOR * SECTOR, start + length,
                                                           SECTOR)}


def read_map(path):
    """({offset, length, status}…, {layer text: [(offset, length, effect)…]}) of a mapfile."""
    blocks, layers = [], {}
    for line in path.read_text().splitlines():
        if match := re.match(r"# (.+): (0x\w+) (0x\w+) (wrong|stale|zero|unreadable)$", line):
            layers.setdefault(match[1], []).append((int(match[2], 0), int(match[3], 0)))
        elif not line.startswith("#"):
            blocks.append(line.split())
    blocks = blocks[1:]  # the status line
    return [(int(start, 0), int(length, 0), status) for start, length, status in blocks], layers


def reads(path, raw, luks, snapshot=None):
    """(sectors that cannot be read, whether the image opens); what can be read goes to `raw`."""
    source = luks_target(path) if luks else ["-f", "qcow2", path]
    view = ["-l", f"snapshot.name={snapshot}"] if snapshot else []
    raw.unlink(missing_ok=True)
    done = run("qemu-img", "convert", "--salvage", *view, "-O", "raw", *source, raw, timeout=300)
    bad = {int(at) for at in re.findall(r"error while reading offset (\d+)", done.err)}
    return bad, done.code == 0


class LostMap(ImageTest):
    on_disk = False

    def test_every_recipe(self):
        chosen = sample(sorted(RECIPES.keys() - UNKNOWABLE - TOO_LARGE), 60, 15)
        for name in sorted({*chosen, *FOUND}):
            with self.subTest(damage=name):
                self.check(name)

    def check(self, name):
        recipe = RECIPES[name]
        luks = recipe.base.content == "luks"
        self.fresh_folder()
        sound = self.sound(recipe.base)
        layers = [None]
        if recipe.base.content == "snapshots":
            layers += ["second one", "third"]
        old = {layer: self._root / f"old-{layer}.raw" for layer in layers}
        for layer, raw in old.items():
            bad, opens = reads(sound, raw, luks, layer)
            self.assertEqual((bad, opens), (set(), True), layer)
        path, _ = self.damaged(name)
        lost = self.folder / "lost.map"
        code, document = check_json(path, *recipe.options, "--lost-map", lost)
        self.assertIn(code, (0, 4))
        blocks, texts = read_map(lost)
        self.check_form(lost, blocks, document["virtual-size"])
        for layer, raw in old.items():
            listed = self.listed(layer, texts)
            if layer is None:
                bad = [(start, length) for start, length, status in blocks if status == "-"]
                self.assertEqual(merged(bad), merged(listed))
            self.compare(raw, reads(path, self._root / "new.raw", luks, layer), listed, document,
                         layer, name in WIDE)

    def listed(self, layer, texts):
        if layer is None:
            return texts.get("the active disk", [])
        found = [ranges for text, ranges in texts.items() if text.endswith(f'"{layer}"')]
        return sum(found, [])

    def check_form(self, path, blocks, size):
        done = run("ddrescuelog", "--show-status", path)
        self.assertEqual(done.code, 0, done.err)
        at = 0
        for start, length, status in blocks:
            self.assertEqual(start, at)
            self.assertIn(status, "+-")
            at += length
        self.assertEqual(at, size)

    def compare(self, old, outcome, listed, document, layer, wide):
        bad, opens = outcome
        with open(old, "rb") as file:
            before = file.read()
        if not opens:  # nothing of it can be read, or the snapshot cannot be found any more
            if layer is None:
                self.assertEqual(merged(listed), merged([(0, document["virtual-size"])]),
                                 summary(document))
            return
        after = (self._root / "new.raw").read_bytes()
        size = min(len(after), len(before))
        listed = sectors([(start, min(end, size) - start) for start, end in merged(listed)
                          if start < size])
        wrong = {at for at in range(0, size, SECTOR)
                 if at in bad or before[at:at + SECTOR] != after[at:at + SECTOR]}
        where = (layer, summary(document))
        self.assertEqual([hex(at) for at in sorted(wrong - listed)][:8], [], where)
        if wide:
            return
        undecided = self.undecided(document)
        zeros = bytes(SECTOR)
        needless = [hex(at) for at in sorted(listed - wrong)
                    if at < size and at not in undecided and before[at:at + SECTOR] != zeros]
        self.assertEqual(needless[:8], [], where)

    def undecided(self, document):
        """Where two claim one cluster and nothing speaks for either, both are listed."""
        ranges = []
        for finding in document["findings"]:
            if finding.get("confidence", 1) <= 0.5:
                for claim in [finding, *finding["also"]]:
                    if "guest-offset" in claim:
                        ranges.append((claim["guest-offset"], claim["guest-length"]))
        return sectors(ranges)

    def test_a_repair_takes_out_what_it_brings_back(self):
        path, _ = self.damaged("hdr-length-short")
        before, after = self.folder / "before.map", self.folder / "after.map"
        self.assertEqual(imgfsck("--lost-map", before, path).code, 4)
        self.assertEqual(imgfsck("--repair", "--lost-map", after, path).code, 1)
        self.assertEqual([status for _, _, status in read_map(before)[0]], ["-"])
        self.assertEqual([status for _, _, status in read_map(after)[0]], ["+"])

    def test_an_existing_map_is_not_overwritten(self):
        path, _ = self.damaged("l2-entry-past-eof")
        there = self.folder / "there.map"
        there.write_text("precious")
        self.assertEqual(imgfsck("--lost-map", there, path).code, 8)
        self.assertEqual(there.read_text(), "precious")


if __name__ == "__main__":
    main()
