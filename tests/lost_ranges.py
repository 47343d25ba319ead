#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A repair names what the guest does not get back: where the disk reads otherwise than it did before
the damage, a range in `repair.lost` or a finding that is left covers it. The recipes under UNKNOWABLE
damage the guest's data in ways that no metadata shows."""
import os

from imglib.patient import RECIPES
from imglib.programs import check_json, guest_copy
from imglib.testing import ImageTest, main, sample, summary

# The mapping itself was changed to something as good: nothing in the image says what was there.
UNKNOWABLE = {
    # The size itself is what is wrong: nobody knows where the disk ended.
    "hdr-size-one",
    "leak-lost-mapping",   # a cluster unmapped, as by a discard; its data is kept as an orphan
    "data-hole",           # as by a discard
    "extl2-compr-bitmap",  # these two write guest data before they damage it
    "compr-plaintext",
}
NO_HEADER = {name for name in RECIPES if name.startswith("start-")} | {"hdr-size-cap"}
FOUND = {"bitmap-table-elsewhere", "l1-entry-zeroed"}  # what once was not named
EVERYTHING = 1 << 63
BLOCK = 512


def ranges_of(document):
    """(start, end) of every guest range of the active disk that the report calls lost or damaged;
    all of it when something is left that concerns the guest and no range in particular."""
    found = []
    for item in document["repair"]["lost"] + [f for f in document["findings"] if not f["fixed"]]:
        for claim in [item, *item.get("also", [])]:
            if claim.get("layer", "active") in ("active", "") and "guest-offset" in claim:
                start = claim["guest-offset"]
                found.append((start, start + claim["guest-length"]))
        whole = "guest-offset" not in item and item["effect"] != "none"
        if whole and item["severity"] == "corruption":
            found.append((0, EVERYTHING))
    return found


def next_data(fd, at):
    """Where the file's first data at or behind `at` begins."""
    try:
        return os.lseek(fd, at, os.SEEK_DATA)
    except OSError:
        return EVERYTHING


def differences(old, new):
    """Offsets of the blocks in which two raw files differ; what only one has counts as different."""
    piece = 1 << 20
    with open(old, "rb") as one, open(new, "rb") as other:
        at, end = 0, min(os.stat(old).st_size, os.stat(new).st_size)
        while True:
            data = min(next_data(one.fileno(), at), next_data(other.fileno(), at))
            # Where neither has anything both read as zeros; behind the shorter one, nothing does.
            at = max(at, min(data, end) // piece * piece)
            one.seek(at)
            other.seek(at)
            a, b = one.read(piece), other.read(piece)
            if not a and not b:
                return
            if a != b:
                for start in range(0, max(len(a), len(b)), BLOCK):
                    if a[start:start + BLOCK] != b[start:start + BLOCK]:
                        yield at + start
            at += piece


class LostRanges(ImageTest):
    on_disk = False

    def test_what_reads_otherwise_is_named(self):
        named = 0
        chosen = sample(sorted(RECIPES.keys() - UNKNOWABLE), 40, 15)
        for name in sorted({*chosen, *FOUND}):
            recipe = RECIPES[name]
            luks = recipe.base.content == "luks"
            self.fresh_folder()
            sound = self.sound(recipe.base)
            old = self._root / "old.raw"
            if not guest_copy(sound, old, luks):
                self.fail(f"{name}: the sound image cannot be read")
            for mode in ("safe", "all"):
                with self.subTest(damage=name, mode=mode):
                    path, _ = self.damaged(name)
                    _, document = check_json(path, *recipe.options, f"--repair={mode}")
                    if "repair" not in document:
                        continue
                    new = self._root / "new.raw"
                    if not guest_copy(path, new, luks):
                        continue  # left so damaged that QEMU does not open it
                    ranges = ranges_of(document)
                    named += bool(document["repair"]["lost"])
                    # Without a header nobody knows where the disk ends: behind it, zeros may come.
                    end = old.stat().st_size // BLOCK * BLOCK if name in NO_HEADER else EVERYTHING
                    missing = [hex(at) for at in differences(old, new) if at < end
                               and not any(start <= at < end for start, end in ranges)]
                    self.assertEqual(missing[:10], [], (ranges, summary(document)))
        self.assertGreater(named, 0)


if __name__ == "__main__":
    main()
