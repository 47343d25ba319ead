#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Damage to single fields, extensions and bitmaps: not only that the image opens again after the
repair, but that what could be kept was kept, and that QEMU sees it so."""
import json

from imglib.programs import check_json, qemu_img
from imglib.qcow2 import Qcow2
from imglib.testing import ImageTest, main, summary


class FieldRepairTest(ImageTest):
    def repaired(self, name, mode="safe", *options, code=1):
        """The image damaged by the recipe and repaired."""
        path, recipe = self.damaged(name)
        got, document = check_json(path, *recipe.options, f"--repair={mode}", *options)
        self.assertEqual(got, code, f"{name}: {summary(document)}")
        return path


class Bitmaps(FieldRepairTest):
    def bitmaps(self, path):
        """name -> flags, as QEMU lists them."""
        info = json.loads(qemu_img("info", "--output=json", "-f", "qcow2", path))
        found = info["format-specific"]["data"].get("bitmaps", [])
        return {bitmap["name"]: set(bitmap["flags"]) for bitmap in found}

    def test_lists_that_are_found_again_are_kept_but_not_trusted(self):
        for name in ("bitmap-ext-short", "bitmap-ext-empty", "bitmap-ext-over",
                     "bitmap-dir-unaligned", "bitmap-dir-zero", "bitmap-dir-past-eof",
                     "bitmap-dir-elsewhere"):
            with self.subTest(damage=name):
                self.assertEqual(self.bitmaps(self.repaired(name)),
                                 {"first": {"in-use"}, "other": {"in-use", "auto"}})

    def test_what_the_list_itself_shows_stays_trusted(self):
        for name in ("bitmap-dir-size-zero", "bitmap-dir-size-max", "bitmap-dir-size-low",
                     "bitmap-count-max", "bitmap-name-empty", "bitmap-name-long",
                     "bitmap-name-max", "bitmap-extra", "bitmap-extra-max", "bitmap-extra-flag",
                     "bitmap-ext-reserved"):
            with self.subTest(damage=name):
                self.assertEqual(self.bitmaps(self.repaired(name)),
                                 {"first": set(), "other": {"auto"}})

    def test_what_cannot_be_kept_is_dropped_and_its_space_given_back(self):
        for name in ("bitmap-type", "bitmap-granularity-high"):
            with self.subTest(damage=name):
                path = self.repaired(name)
                self.assertEqual(len(self.bitmaps(path)), 1)
                with Qcow2(path) as image:
                    self.assertEqual(image.snapshots, [])

    def test_entries_that_are_lost_count_as_changed_or_cost_trust(self):
        for name in ("bitmap-tentry-reserved-high", "bitmap-tentry-unaligned",
                     "bitmap-tentry-past-eof", "bitmap-tentry-on-data"):
            for mode, in_use in (("safe", 1), ("all", 0)):
                with self.subTest(damage=name, mode=mode):
                    flags = self.bitmaps(self.repaired(name, mode)).values()
                    self.assertEqual(sum("in-use" in f for f in flags), in_use)

    def test_clusters_of_an_unreadable_list_stay_reachable(self):
        path = self.repaired("bitmap-dir-ones")
        self.assertEqual(self.bitmaps(path), {})
        with Qcow2(path) as image:
            self.assertEqual([s.name for s in image.snapshots], ["lost+found"])

    def test_a_version_2_image_loses_them(self):
        path = self.repaired("bitmap-v2", code=0)
        self.assertEqual(self.bitmaps(path), {})
        with Qcow2(path) as image:
            self.assertEqual(image.extensions, [])

    def test_bitmaps_not_closed_cleanly_go_only_by_name(self):
        self.assertEqual(len(self.bitmaps(self.repaired("bitmap-in-use", "all", code=0))), 2)
        path = self.repaired("bitmap-in-use", "safe", "--fix", "qcow2-bitmap-in-use", code=0)
        self.assertEqual(len(self.bitmaps(path)), 1)


if __name__ == "__main__":
    main()
