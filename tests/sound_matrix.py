#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Sound images of every kind that QEMU makes: imgfsck answers 0, says what qemu-img check says of
them, and leaves bytes, length and times alone. All combinations in a long run; otherwise a seeded
sample in which every kind, cluster size and count width occurs."""
import itertools

from imglib.make import CLUSTER_SIZES, CONTENTS, REFCOUNT_BITS, Recipe, valid
from imglib.patient import Patient
from imglib.programs import (SANITIZED, check_json, folder_state, qemu_check, qemu_img, qemu_io)
from imglib.testing import QEMU_KEYS, ImageTest, main, sample, summary


def combinations():
    return [recipe for recipe in
            (Recipe(*parts) for parts in
             itertools.product(CONTENTS, ("v2", "v3"), CLUSTER_SIZES, REFCOUNT_BITS))
            if valid(recipe)]


def chosen():
    """A sample, then whatever it takes for each single value to occur."""
    every = combinations()
    # A LUKS image takes seconds to make: a few will do.
    picked = sample((r for r in every if r.content != "luks"), 45, 20)
    picked += sample((r for r in every if r.content == "luks"), 3, 1)
    if SANITIZED:
        return picked
    for field in Recipe._fields:
        for value in {getattr(recipe, field) for recipe in every}:
            if not any(getattr(recipe, field) == value for recipe in picked):
                picked.append(next(r for r in every if getattr(r, field) == value))
    return picked


class SoundMatrix(ImageTest):
    def test_sound_images_stay_sound(self):
        recipes = chosen()
        self.assertGreater(len(recipes), 20)
        for recipe in recipes:
            with self.subTest(recipe=recipe):
                self.fresh_folder()
                self.check_one(self.sound(recipe, keep=False), recipe)

    def oddities(self):
        """(what it is, an image that is unusual and legal)"""
        for name in ("l1-oversize", "l2-tail-short", "l2-past-size", "file-tail", "snap-time",
                     "ext-no-end", "hdr-compat-unknown", "bitmap-entry-padding", "bitmap-in-use"):
            yield name, self.damaged(name)[0]
        for option in ("preallocation=metadata", "preallocation=falloc", "lazy_refcounts=on"):
            path = self.folder / f"{option}.qcow2"
            qemu_img("create", "-q", "-f", "qcow2", "-o", option, path, "33M")
            qemu_io(path, ["write 1M 3M", "write -z 2M 64k", "discard 3M 128k"])
            yield option, path
        qemu_img("resize", "-q", "--shrink", path, "9M")
        yield "shrunk", path
        qemu_img("resize", "-q", path, "2T")
        qemu_io(path, ["write 1T 64k"])
        yield "grown", path
        path = self.sound(Recipe("snapshots", "v2"), "table.qcow2")
        patient = Patient(path)
        old = patient.header["refcount_table_offset"]
        table = patient.append_clusters(patient.read(old, patient.cluster_size) +
                                        bytes(2 * patient.cluster_size))
        patient.set_header(refcount_table_offset=table, refcount_table_clusters=3)
        patient.set_count(old >> patient.cluster_bits, 0)
        patient.close()
        yield "refcount table longer than needed", path
        path = self.sound(Recipe("data-file"), "zeroed.qcow2")
        qemu_io(path, ["write 0 4k", "write -z 0 4k"])
        yield "first cluster of a data file zeroed", path
        path = self.folder / "nothing.qcow2"
        qemu_img("create", "-q", "-f", "qcow2", path, "0")
        yield "disk of no bytes", path

    def test_legal_oddities_stay_clean(self):
        for name, path in self.oddities():
            with self.subTest(oddity=name):
                self.check_one(path, Recipe())

    def check_one(self, path, recipe):
        before = folder_state(self.folder)
        code, document = check_json(path)
        self.assertEqual(folder_state(self.folder), before)
        self.assertEqual(code, 0, summary(document))
        self.assertEqual(document["exit-code"], 0)
        self.assertEqual(self.worst(document), 0, summary(document))
        qemu_code, qemu = qemu_check(path, recipe.content == "luks")
        self.assertEqual(qemu_code, 0)
        for key in QEMU_KEYS:
            if key != "filename":
                # QEMU leaves out what is zero or does not apply.
                self.assertEqual(document[key], qemu.get(key, 0), key)
        self.assertEqual(document["virtual-size"], self.virtual_size(path))

    def virtual_size(self, path):
        with open(path, "rb") as file:
            return int.from_bytes(file.read(32)[24:], "big")


if __name__ == "__main__":
    main()
