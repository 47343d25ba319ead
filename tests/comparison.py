#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What becomes of images damaged as people met it (imglib/incidents.py): by `qemu-img check -r all`,
by imgfsck --repair and by imgfsck --repair=all, judged by QEMU and by looking into the file. The
results are docs/comparison.md, which this test holds to the truth, and what must never happen does
not.

    comparison.py --renew    writes the page anew
"""
import os
import pathlib
import sys
import tempfile
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor

from imglib.fixtures import Bases
from imglib.incidents import INCIDENTS, strike
from imglib.programs import data_blocks, guest_copy, imgfsck, run
from imglib.qcow2 import Qcow2
from imglib.referee import SECTION
from imglib.testing import ImageTest, main, sample

PAGE = pathlib.Path(__file__).resolve().parent.parent / "docs" / "comparison.md"
SECTOR = 512

# code: exit status. reads: pieces that a guest reads right; None: QEMU cannot read the disk through.
# kept: pieces whose bytes are in the file. shown: of those, what some disk or snapshot shows.
Outcome = namedtuple("Outcome", "code reads kept shown")
Row = namedtuple("Row", "told pieces damaged check qemu safe all")


class Pieces:
    """What was written to the sound image: (snapshot's name or "", guest offset, first sector).
    grown: the disk became much larger, and only its beginning is looked at."""

    def __init__(self, path, grown):
        self.grown = grown
        self.pieces, self.step = [], 0
        with Qcow2(path) as image:
            self.step = image.cluster_size
            names = {"active": ""} | {s.id: s.name for s in image.snapshots}
            for layer, _, _ in image.layers():
                for slot in image.slots(layer):
                    if image.state(slot) == "data":
                        where = image.host(slot)
                        self.pieces.append((names[layer], slot.guest, image.read(where, SECTOR)))
        self.snapshots = sorted({layer for layer, _, _ in self.pieces} - {""})

    def views(self, path, folder):
        """layer -> raw copy of what QEMU shows, holes kept; nothing for what it cannot show."""
        views = {}
        with Qcow2Names(path) as found:
            for layer in dict.fromkeys(["", *self.snapshots, *found]):
                raw = folder / f"view{len(views)}"
                if self.copied(path, raw, layer):
                    views[layer] = raw
        return views

    def copied(self, path, raw, layer):
        if not self.grown:
            return guest_copy(path, raw, snapshot=layer or None)
        start = max(guest for _, guest, _ in self.pieces) + self.step
        return run("qemu-img", "convert", "-O", "raw", "--image-opts",
                   f"driver=raw,size={start},file.driver=qcow2,file.file.driver=file,"
                   f"file.file.filename={path}", raw).code == 0

    def outcome(self, code, path):
        with tempfile.TemporaryDirectory(dir=path.parent) as name:
            views = self.views(path, pathlib.Path(name))
            reads = sum(layer in views and self.at(views[layer], guest) == bytes_
                        for layer, guest, bytes_ in self.pieces)
            wanted = {bytes_ for _, _, bytes_ in self.pieces}
            shown = set().union(*(sectors(view, wanted, self.step) for view in views.values()))
            kept = sectors(path, wanted, self.step) | shown
        return Outcome(code, reads if "" in views else None,
                       sum(bytes_ in kept for _, _, bytes_ in self.pieces),
                       sum(bytes_ in shown for _, _, bytes_ in self.pieces))

    def at(self, raw, offset):
        with open(raw, "rb") as file:
            return os.pread(file.fileno(), SECTOR, offset)


class Qcow2Names:
    """The names of the snapshots that QEMU sees in the image."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        done = run("qemu-img", "snapshot", "-l", self.path)
        lines = done.out.splitlines()[2:] if done.code == 0 else []
        return [name for name in ("lost+found", "lost+found.2", "recovered-1", "recovered-2",
                                  "recovered-3", "recovered-4") if any(f" {name} " in line
                                                                       for line in lines)]

    def __exit__(self, *_):
        pass


def sectors(path, wanted, step):
    found = set()
    with open(path, "rb") as file:
        for _, data in data_blocks(file, os.fstat(file.fileno()).st_size):
            found |= {data[at:at + SECTOR] for at in range(0, len(data), step)} & wanted
    return found


def judge(told, bases, root):
    """One row: the same damaged image given to each of them."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="incident", dir=root))
    sound = Pieces(bases.home(told.base) / Bases.FILE, told.grown)

    def damaged(name):
        home = folder / name
        home.mkdir()
        bases.copy(told.base, home)
        strike(told.name, home / Bases.FILE)
        return home / Bases.FILE

    path = damaged("nobody")
    before = sound.outcome(None, path)
    check = imgfsck(*told.options, path)
    path = damaged("qemu")
    qemu = sound.outcome(run("qemu-img", "check", "-r", "all", "-f", "qcow2", path).code, path)
    outcomes = []
    for mode in ("safe", "all"):
        path = damaged(mode)
        done = imgfsck(*told.options, f"--repair={mode}", path)
        outcomes.append(sound.outcome(done.code, path))
    return Row(told, len(sound.pieces), before, check.code, qemu, *outcomes)


def text_of(outcome, row):
    """What became of it; in bold what is gone that was there in the damaged image."""
    gone = row.damaged.kept - outcome.kept
    if outcome.reads is None:
        text = "cannot be read through"
    else:
        text = f"{outcome.reads} right"
        if outcome.shown > outcome.reads:
            text += f", {outcome.shown - outcome.reads} more elsewhere"
    if outcome.code is not None:
        text = f"{outcome.code}: {text}"
    elif outcome.kept < row.pieces:
        text += f", {row.pieces - outcome.kept} gone"
    return text + (f", **{gone} gone**" if gone > 0 else "")


HEAD = """# What becomes of damaged images

Damage that people have met in the field, made anew (tests/imglib/incidents.py says how), and given
to `qemu-img check -r all` 7.2, to `imgfsck --repair` and to `imgfsck --repair=all`. Every piece of
data in the sound image is unique, so that it can be told afterwards, by asking QEMU and by looking
into the file, how many of them a guest reads right, how many can be read elsewhere (in a snapshot
`lost+found`, or at another address), and how many are gone from the file (in bold: it was the repair
that lost them). The pieces of snapshots count too. "Cannot be read through": QEMU refuses the image,
or stops while it copies the disk. What comes first is the exit status: `qemu-img check` answers 0 for "no errors are left",
imgfsck 0 for "nothing to report", 1 for "all repaired", 4 for "something is left".

`scripts/renew_fixtures.sh` writes this page from real runs; a test fails when it is not true.

| what happened | met by | pieces | as damaged | imgfsck says | `qemu-img check -r all` | `imgfsck --repair` | `imgfsck --repair=all` |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""


def page(rows):
    lines = []
    for row in rows:
        cells = [row.told.what, row.told.origin, str(row.pieces), text_of(row.damaged, row),
                 str(row.check), *(text_of(each, row) for each in (row.qemu, row.safe, row.all))]
        lines.append("| " + " | ".join(cells) + " |\n")
    return HEAD + "".join(lines)


class Comparison(ImageTest):
    on_disk = False

    def rows(self, names):
        bases = Bases(self._root)
        bases.prepare(INCIDENTS[name].base for name in names)
        with ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as pool:
            return list(pool.map(lambda name: judge(INCIDENTS[name], bases, self._root), names))

    def test_the_page_is_true(self):
        rows = self.rows(sample(INCIDENTS, len(INCIDENTS), 10))
        for row in rows:
            with self.subTest(incident=row.told.name):
                self.never(row)
        text = page(rows)
        if RENEW:
            found = PAGE.read_text()
            PAGE.write_text(text + found[found.index(SECTION):])  # differential.py writes the rest
        for line, row in zip(text[len(HEAD):].splitlines(), rows):
            with self.subTest(incident=row.told.name):
                self.assertIn(line + "\n", PAGE.read_text(), "comparison.py --renew accepts this")
        self.assertTrue(PAGE.read_text().startswith(HEAD))

    def never(self, row):
        """A repair loses no byte of the guest's, shows no less than before, and is right when it says
        that all is repaired."""
        for outcome in (row.safe, row.all):
            self.assertIn(outcome.code, (0, 1, 4))
            self.assertGreaterEqual(outcome.kept, row.damaged.kept)
            self.assertGreaterEqual(outcome.reads or 0, row.damaged.reads or 0)
            if outcome.code == 1:
                self.assertIsNotNone(outcome.reads)
        if row.told.name.startswith("legal-"):
            self.assertEqual((row.check, row.safe.code, row.all.code), (0, 0, 0))


RENEW = "--renew" in sys.argv
if RENEW:
    sys.argv.remove("--renew")

if __name__ == "__main__":
    main()
