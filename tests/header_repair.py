#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Headers worked out from the tables: whatever is done to the header, or to the first cluster, of an
image of any shape, --repair=all gives the disk and its snapshots back as they were."""
import random

from imglib.damage_start import FIRST, LOG
from imglib.make import CLUSTER_SIZES, CONTENTS, REFCOUNT_BITS, Recipe, valid
from imglib.programs import check_json, copy, guest_digest, imgfsck, qemu_check, run
from imglib.qcow2 import HEADER, Qcow2
from imglib.testing import ImageTest, main, sample, summary

FORMAT = ("--format", "qcow2")


def fields(image):
    """name -> (field, wrong value) for every field that says where the tables are."""
    header, size = image.header, image.cluster_size
    past = (image.file_size // size + 10) * size
    wrong = {
        "magic": ("magic", 0x514649FA), "version 0": ("version", 0),
        "version 9": ("version", 9), "cluster_bits 0": ("cluster_bits", 0),
        "cluster_bits max": ("cluster_bits", 0xFFFFFFFF),
        "cluster_bits less": ("cluster_bits", max(image.cluster_bits - 1, 8)),
        "cluster_bits more": ("cluster_bits", image.cluster_bits + 1),
        "l1_size 0": ("l1_size", 0), "l1_size max": ("l1_size", 0xFFFFFFFF),
        "l1 offset 0": ("l1_table_offset", 0),
        "l1 offset unaligned": ("l1_table_offset", header["l1_table_offset"] + 8),
        "l1 past end": ("l1_table_offset", past),
        "l1 on refcounts": ("l1_table_offset", header["refcount_table_offset"]),
        "refcounts 0": ("refcount_table_offset", 0),
        "refcounts unaligned": ("refcount_table_offset", header["refcount_table_offset"] + 8),
        "refcounts past end": ("refcount_table_offset", past),
        "refcounts on l1": ("refcount_table_offset", header["l1_table_offset"]),
        "refcounts none": ("refcount_table_clusters", 0),
        "refcounts many": ("refcount_table_clusters", 0xFFFFFFFF),
        "size 0": ("size", 0), "size huge": ("size", 1 << 62),
    }
    if header["version"] == 3:
        wrong["refcount_order 7"] = ("refcount_order", 7)
        wrong["refcount_order other"] = ("refcount_order", header["refcount_order"] ^ 1)
    return wrong


def lost(image):
    """name -> bytes over the beginning."""
    noise = random.Random(image.file_size)
    found = {}
    for name, length in (("header", 112), ("cluster", image.cluster_size)):
        found[f"{name} zeros"] = bytes(length)
        found[f"{name} text"] = (LOG * (length // len(LOG) + 1))[:length]
        found[f"{name} random"] = noise.randbytes(length)
    if image.cluster_size >= FIRST:  # below, the tables themselves lie there
        found["64 KiB text"] = (LOG * (FIRST // len(LOG) + 1))[:FIRST]
    return found


class HeaderRepair(ImageTest):
    def recipes(self):
        contents = [c for c in CONTENTS if not c.startswith("data-file")]
        every = [Recipe(content, compat, size, bits) for content in contents
                 for compat in ("v2", "v3") for size in CLUSTER_SIZES for bits in REFCOUNT_BITS]
        return sample([r for r in every if valid(r)], 3, 1)

    def views(self, path, recipe, names):
        luks = recipe.content == "luks"
        return {name: guest_digest(path, luks, None if name == "active" else name)
                for name in names}

    def assert_back(self, path, recipe, reference):
        code, document = check_json(path, *FORMAT, "--repair=all", "--no-undo", timeout=300)
        self.assertEqual(code, 1, summary(document))
        self.assertEqual(qemu_check(path, recipe.content == "luks")[0], 0)
        if recipe.content == "luks":
            return
        done = run("qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", path, reference)
        self.assertEqual(done.code, 0, done.out + done.err)

    def each(self, damages, try_one):
        """try_one(recipe, sound image, copy of it, how to damage it, what a guest reads)."""
        for recipe in self.recipes():
            self.fresh_folder()
            reference = self.sound(recipe, "sound.qcow2")
            with Qcow2(reference) as image:
                wanted = damages(image)
                snapshots = [s.name for s in image.snapshots]
            before = self.views(reference, recipe, ["active", *snapshots])
            for name in sample(wanted, 3, 1):
                with self.subTest(recipe=tuple(recipe), damage=name):
                    path = self.folder / "hurt.qcow2"
                    copy(reference, path)
                    try_one(recipe, reference, path, wanted[name], before)

    def test_fields(self):
        def try_one(recipe, reference, path, wrong, before):
            field, value = wrong
            at, size = HEADER[field]
            with open(path, "r+b") as file:
                file.seek(at)
                file.write(value.to_bytes(size, "big"))
            self.assert_back(path, recipe, reference)
            if field != "size":
                self.assertEqual(self.views(path, recipe, before), before)
        self.each(fields, try_one)

    def test_lost_beginning(self):
        def try_one(recipe, reference, path, data, before):
            if recipe.content == "backing":
                return  # its name is lost with the cluster: see below
            with open(path, "r+b") as file:
                file.write(data)
            self.assert_back(path, recipe, reference)
        self.each(lost, try_one)

    def test_lost_backing_name_is_said(self):
        path = self.sound(Recipe("backing"))
        with open(path, "r+b") as file:
            file.write(bytes(4096))
        done = imgfsck(*FORMAT, "--repair=all", "--no-undo", path)
        self.assertEqual(done.code, 1, done.out)
        self.assertIn("backing file's name", done.out)

    def test_sound_images_are_believed(self):
        for recipe in self.recipes():
            self.fresh_folder()
            code, document = check_json(self.sound(recipe))
            self.assertEqual((code, document["corruptions"]), (0, 0), summary(document))


if __name__ == "__main__":
    main()
