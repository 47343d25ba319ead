#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""imgtriage on a store as an incident leaves it: 60 files made by the programs that people use, of
all formats, sound, chained, damaged, cut short and hostile. What is expected of each is known
beforehand; who finds it all has seen the store once and left it as it was."""
import html.parser
import json
import os
import sqlite3
import time

import imgdamage  # noqa: F401  registers the recipes
from imglib import hostile, patient
from imglib.make import Recipe
from imglib.programs import BIN, folder_state, qemu_img, qemu_io, run
from imglib.testing import ImageTest, main

FILES = 60
TERMINAL, MARKUP = "\x1b]0;x\x07\x1b[31mred", "<img src=x onerror=alert(1)>&lt;'\""
SOUND = {"plain": Recipe(), "snapshots": Recipe("snapshots"), "bitmaps": Recipe("bitmaps"),
         "compressed": Recipe("zlib")}
DAMAGED = ("rt-unaligned", "rt-past-eof", "rt-entry-past-eof", "rb-overlap-l2", "l1-past-eof",
           "refcount-zero-used-16", "refcount-block-zeroed-16", "leak-content", "l1-unaligned",
           "rt-entry-duplicate")
HOSTILE = ("backing-absolute", "backing-device", "backing-json", "backing-nbd", "backing-share",
           "data-file", "vhd-locator", "vmdk-flat", "vmdk-extent", "qcow2-and-vhd",
           "raw-with-header", "guest-header", "name-on-header", "size-huge", "l1-huge",
           "snapshots-huge", "cluster-bits", "feature-unknown", "data-on-l1", "legacy-crypt")
ORDER = ["unsafe", "undecidable", "damaged", "sound"]


class Texts(html.parser.HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags, self.texts = set(), []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        self.texts.append(data)


class Store(ImageTest):
    def sound_images(self, store):
        for name, recipe in SOUND.items():
            os.rename(self.sound(recipe), store / name)
            yield name, "sound"
        for name, form, kind in (("old.qcow", "qcow", "unsafe"), ("dynamic.vhd", "vpc", "sound"),
                                 ("disk.vdi", "vdi", "undecidable")):
            qemu_img("create", "-q", "-f", form, store / name, "8M")
            yield name, kind
        qemu_img("create", "-q", "-f", "vpc", "-o", "subformat=fixed", store / "fixed", "4M")
        yield "fixed", "sound"
        run("truncate", "-s", "8M", store / "ext", check=True)
        run("mkfs.ext4", "-q", store / "ext", check=True)
        yield "ext", "sound"
        qemu_img("create", "-q", "-f", "qcow2", store / "vast", "40T")
        yield "vast", "sound"

    def chains(self, store):
        """Two layers upon a base that is damaged; one that lost its base, one that goes round."""
        os.rename(self.damaged("leak-zero-16", fresh=False)[0], store / "base")
        yield "base", "damaged"
        for child in range(5):
            qemu_img("create", "-q", "-f", "qcow2", "-u", "-b", "base", "-F", "qcow2",
                     store / f"child{child}", "1M")
            yield f"child{child}", "unsafe"
        for name, backing in (("grandchild", "child0"), ("lost", "gone"), ("round", "and-round"),
                              ("and-round", "round")):
            qemu_img("create", "-q", "-f", "qcow2", "-u", "-b", backing, "-F", "qcow2",
                     store / name, "1M")
            yield name, "unsafe"

    def cut(self, store):
        """Images that a copy broke off in, by what is left of them."""
        for name, left in (("cut-early", 8), ("cut-header", 104), ("cut-middle", 0.5)):
            os.rename(self.sound(Recipe("snapshots")), store / name)
            size = (store / name).stat().st_size
            os.truncate(store / name, left if isinstance(left, int) else int(size * left))
            yield name, None
        qemu_img("create", "-q", "-f", "vpc", store / "cut.vhd", "8M")
        os.truncate(store / "cut.vhd", 700)
        yield "cut.vhd", None

    def others(self, store):
        (store / "note").write_text("no image\n")
        (store / "empty").write_bytes(b"")
        (store / "noise").write_bytes(bytes(range(1, 250)) * 40)
        run("truncate", "-s", "256M", store / "nothing", check=True)
        for name in ("note", "empty", "noise", "nothing"):
            yield name, "other"

    def make(self, store):
        """name -> what is expected: an attention, "other", or nothing in particular. And the finding
        or the reason that it has to be for."""
        kinds, codes = {}, {}
        for part in (self.sound_images, self.chains, self.cut, self.others):
            kinds.update(part(store))
        for name in DAMAGED:
            path, recipe = self.damaged(name, fresh=False)
            os.rename(path, store / f"damaged-{name}")
            kinds[f"damaged-{name}"] = None
            codes[f"damaged-{name}"] = {f"qcow2-{code}" for code in recipe.codes}
        cases = {case.name: case for case in hostile.CASES}
        for number, name in enumerate(HOSTILE):
            called = f"hostile-{name}" + (TERMINAL if number % 2 else MARKUP).replace("/", "_")
            if name.startswith("vmdk-"):  # their descriptors name the file
                called = f"hostile-{name}"
            cases[name].attack(store / called)
            for extra in store.glob(f"{called}-*"):  # a VMDK's second file
                extra.unlink()
            kinds[called] = "unsafe"
            codes[called] = {cases[name].code}
        for path in store.iterdir():
            if path.name not in kinds:
                path.unlink()
        while len(kinds) < FILES:
            name = f"spare{len(kinds)}"
            qemu_img("create", "-q", "-f", "qcow2", store / name, "64M")
            qemu_io(store / name, [f"write -P {len(kinds)} {len(kinds)}M 64k"])
            kinds[name] = "sound"
        return kinds, codes

    def triage(self, store, folder, *options):
        folder.mkdir()
        outputs = [word for name in ("json", "report", "db", "dfxml", "bodyfile", "timesketch")
                   for word in (f"--{name}", folder / name)]
        done = run(BIN / "imgtriage", "--hash", "sha256", "--entropy", "--orphans-to",
                   folder / "copies", *outputs, *options, store, timeout=300)
        self.assertEqual(done.code, 4, done.err)
        return done.out

    def judge(self, lines, kinds, codes):
        for name, kind in kinds.items():
            line = lines[name]
            if kind == "other":
                self.assertIsNone(line["format"], name)
                self.assertNotIn("attention", line)
                continue
            self.assertIn(line["attention"], [kind] if kind else ORDER[:3],
                          f"{name}: {line['because']}")
            self.assertEqual(line["because"] == "", line["attention"] == "sound", name)
            if name in codes:
                seen = {r["code"] for r in line["reasons"]} | {
                    f["code"] for f in line["findings"]}
                self.assertTrue(seen & codes[name], f"{name}: {seen}")
        ranked = sorted((line for line in lines.values() if "rank" in line),
                        key=lambda line: line["rank"])
        grades = [ORDER.index(line["attention"]) for line in ranked]
        self.assertEqual(grades, sorted(grades))
        self.assertEqual([line["rank"] for line in ranked], list(range(1, len(ranked) + 1)))
        self.assertIn("6 images upon it", lines["base"]["because"])
        self.assertEqual(lines["child3"]["links"][0]["state"], "found")
        self.assertEqual(lines["lost"]["links"][0]["state"], "missing")
        for name in ("round", "and-round"):
            self.assertIn("chain-cycle", [r["code"] for r in lines[name]["reasons"]])

    def test_one_look_at_everything(self):
        store = self.folder / "store"
        store.mkdir()
        kinds, codes = self.make(store)
        self.assertEqual((len(kinds), len(list(store.iterdir()))), (FILES, FILES))
        for path in store.iterdir():  # so that the host has made up its mind where they lie
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        before = folder_state(store)
        for path in store.iterdir():  # they were read just now, by this test
            os.utime(path, ns=(10 ** 18, path.stat().st_mtime_ns))
        began = time.monotonic()
        text = self.triage(store, self.folder / "one", "-j", "1", "--verify-untouched")
        seconds = time.monotonic() - began
        self.assertLess(seconds, 240)
        self.assertEqual([p.stat().st_atime_ns for p in sorted(store.iterdir())],
                         [10 ** 18] * FILES)
        self.assertEqual(self.triage(store, self.folder / "two", "-j", "2", "--verify-untouched"),
                         text)
        names = sorted(p.relative_to(self.folder / "one") for p in
                       (self.folder / "one").rglob("*") if p.is_file())
        self.assertGreater(len(names), 7)
        for name in names:
            self.assertEqual((self.folder / "one" / name).read_bytes(),
                             (self.folder / "two" / name).read_bytes(), name)
        self.assertEqual(before, folder_state(store))
        lines = {line["filename"].split("/")[-1]: line for line in map(
            json.loads, (self.folder / "one" / "json").read_text().splitlines())}
        self.assertEqual(set(lines), set(kinds))
        self.judge(lines, kinds, codes)
        self.outputs_agree(text, lines)

    def outputs_agree(self, text, lines):
        self.assertNotIn("\x1b", text)
        first = next(name for name, line in lines.items() if line.get("rank") == 1)
        look = text[text.index("look first at:\n"):].splitlines()
        self.assertIn(first.split("\x1b")[0], look[1])
        self.assertEqual(len([line for line in look if line.startswith("  ") and ". " in line[:6]]),
                         10)
        page = Texts((self.folder / "one" / "report").read_text())
        self.assertFalse(page.tags & {"img", "script", "link", "iframe", "object"})
        shown = "\n".join(page.texts)
        self.assertIn(MARKUP, shown)
        self.assertNotRegex(shown, "[\x00-\x08\x0b-\x1f\x7f]")
        for name, line in lines.items():
            if "rank" in line:
                self.assertIn(name.replace("\x1b", "\\x1b").replace("\x07", "\\x07"), shown)
        run("xmllint", "--noout", self.folder / "one" / "dfxml", check=True)
        db = sqlite3.connect(f"file:{self.folder / 'one' / 'db'}?mode=ro", uri=True)
        rows = db.execute("SELECT path, rank, because, verdict FROM file").fetchall()
        db.close()
        self.assertEqual(len(rows), FILES)
        for path, rank, because, verdict in rows:
            line = lines[path.split("/")[-1]]
            self.assertEqual(line["verdict"], verdict)
            if "rank" in line:
                self.assertEqual((line["rank"], line["because"]), (rank, because), path)


if __name__ == "__main__":
    main()
