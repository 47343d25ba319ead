#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Damage to single fields, extensions and bitmaps: not only that the image opens again after the
repair, but that what could be kept was kept, and that QEMU sees it so."""
import json

from imglib.patient import RECIPES
from imglib.programs import (check_json, file_state, folder_state, guest_digest, imgfsck,
                             qemu_check, qemu_img)
from imglib.qcow2 import Qcow2
from imglib.testing import ImageTest, codes, main, summary


class FieldRepairTest(ImageTest):
    _digests = {}

    def repaired(self, name, mode="safe", *options, code=1):
        """The image damaged by the recipe and repaired."""
        path, recipe = self.damaged(name)
        got, document = check_json(path, *recipe.options, f"--repair={mode}", *options)
        self.assertEqual(got, code, f"{name}: {summary(document)}")
        return path

    def assert_guest_as_sound(self, name, path):
        """The guest reads what it read before the damage."""
        base = RECIPES[name].base
        luks = base.content == "luks"
        if base not in self._digests:
            sound = self._bases[base, path.name] / path.name
            self._digests[base] = guest_digest(sound, luks)
        self.assertIsNotNone(self._digests[base])
        self.assertEqual(guest_digest(path, luks), self._digests[base])


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


# Damage that no mode repairs, with what --fix names it by.
BY_NAME = {
    "hdr-size-unaligned": "hdr-size-unaligned", "hdr-size-one": "hdr-size-unaligned",
    "hdr-autoclear-unknown": "hdr-autoclear-unknown", "hdr-area-junk": "hdr-area-junk",
    "ext-duplicate-other": "ext-duplicate",
    "ext-backing-format-orphan": "ext-backing-format-orphan",
    "ext-datafile-orphan": "ext-datafile-orphan", "l1-oversize": "l1-oversize",
    "l2-past-size": "l2-past-size", "extl2-past-size": "extl2-past-size",
    "file-tail": "file-tail", "snap-offset-stale": "snap-offset-stale",
    "bitmap-entry-padding": "bitmap-entry-padding", "bitmap-in-use": "bitmap-in-use",
    "snap-name-nul": "snap-name-nul", "snap-vmstate-range": "snap-vmstate-range",
    "snap-time": "snap-time",
}


class ByName(FieldRepairTest):
    def test_only_fix_mends_it(self):
        for name, code in sorted(BY_NAME.items()):
            with self.subTest(damage=name):
                path, recipe = self.damaged(name)
                check_json(path, *recipe.options, "--repair=all")
                self.assertIn(f"qcow2-{code}", codes(check_json(path, *recipe.options)[1]))
                self.check_fix(name, f"qcow2-{code}")

    def check_fix(self, name, code):
        path, recipe = self.damaged(name)
        before, options = file_state(path), [*recipe.options, "--repair", "--fix", code]
        status, document = check_json(path, *options)
        self.assertEqual(status, 0, summary(document))
        self.assertNotIn(code, codes(check_json(path, *recipe.options)[1]))
        after = folder_state(self.folder)
        self.assertEqual(check_json(path, *options)[0], 0)
        self.assertEqual(folder_state(self.folder), after, "the second repair wrote something")
        if name != "ext-duplicate-other":  # QEMU takes the raw backing file for a qcow2
            self.assertEqual(qemu_check(path)[0], 0)
        undo = path.with_name(path.name + ".imgfsck-undo")
        self.assertEqual(imgfsck("--rollback", undo, path).code, 0)
        state = file_state(path)
        self.assertEqual((state.digest, state.size), (before.digest, before.size))


class Encryption(FieldRepairTest):
    """After the repair the passphrase opens the disk, and every byte is what it was."""

    def restored(self, name, mode):
        self.assert_guest_as_sound(name, self.repaired(name, mode))

    def test_the_header_is_found_again(self):
        for name in ("ext-crypto-missing", "ext-crypto-orphan", "ext-crypto-length",
                     "ext-crypto-unaligned", "ext-crypto-empty", "ext-crypto-elsewhere",
                     "ext-crypto-zero", "ext-crypto-past-eof", "hdr-crypt-method-luks"):
            with self.subTest(damage=name):
                self.restored(name, "all")

    def test_plain_data_shows_that_nothing_is_encrypted(self):
        for name in ("hdr-crypt-method", "hdr-crypt-method-none"):
            with self.subTest(damage=name):
                self.restored(name, "all")

    def test_fields_that_follow_from_others(self):
        for mode, names in (("safe", ("luks-length-short", "luks-past-eof", "luks-slot-state",
                                      "luks-slot-sector")),
                            ("all", ("luks-slot-stripes", "luks-slot-on-other",
                                     "luks-slot-state-active", "luks-payload-zero",
                                     "luks-payload-max", "luks-no-slot"))):
            for name in names:
                with self.subTest(damage=name):
                    self.restored(name, mode)

    def test_what_a_passphrase_needs_is_never_guessed(self):
        for name in ("luks-magic", "luks-version", "luks-cipher", "luks-slot-iterations"):
            with self.subTest(damage=name):
                path, _ = self.damaged(name)
                before = path.read_bytes()
                code, document = check_json(path, "--repair=all")
                self.assertEqual(code, 4, summary(document))
                self.assertEqual(path.read_bytes(), before)

    def test_nothing_is_given_back_while_the_header_is_lost(self):
        path = self.repaired("ext-crypto-missing", "safe", code=4)
        code, document = check_json(path, "--repair=all")
        self.assertEqual(code, 1, summary(document))
        self.assertIsNotNone(guest_digest(path, luks=True))


class Snapshots(FieldRepairTest):
    def names(self, path):
        with Qcow2(path) as image:
            return [(s.id, s.name) for s in image.snapshots]

    def own_names(self, path):
        return [name for _, name in self.names(path) if name != "lost+found"]

    def test_a_lost_table_is_found_with_its_names(self):
        for name in ("snap-table-unaligned", "snap-table-next", "snap-table-past-eof",
                     "snap-table-zero", "snap-undercount-zero"):
            with self.subTest(damage=name):
                self.assertEqual(self.names(self.repaired(name)),
                                 [("2", "second one"), ("3", "third")])

    def test_entries_behind_a_damaged_length_are_read_again(self):
        names = self.names(self.repaired("snap-entry-overrun"))
        self.assertEqual(names[:2], [("2", "second one"), ("3", "third")])

    def test_without_the_table_what_it_led_to_is_listed_again(self):
        names = [name for _, name in self.names(self.repaired("snap-table-lost"))]
        self.assertEqual(len([n for n in names if n.startswith("recovered-")]), 2, names)

    def test_what_is_gone_is_dropped_only_by_all(self):
        for name in ("snap-l1-lost", "snap-data-file"):
            with self.subTest(damage=name):
                before = self.own_names(self.repaired(name, "safe", code=4))
                after = self.own_names(self.repaired(name, "all"))
                self.assertEqual(len(after), len(before) - 1, (before, after))

    def test_ids_are_made_unique_in_place(self):
        ids = [i for i, _ in self.names(self.repaired("snap-id-duplicate", code=0))]
        self.assertEqual(ids, ["2", "3"])

    def test_extra_data_of_a_newer_version_is_cut_only_by_all(self):
        self.repaired("snap-extra-cap", "safe", code=4)
        with Qcow2(self.repaired("snap-extra-cap", "all")) as image:
            self.assertEqual(max(len(s.extra) for s in image.snapshots), 1024)


class BackingName(FieldRepairTest):
    def test_the_name_is_found_again(self):
        for name in ("backing-offset-header", "backing-offset-over", "backing-offset-end",
                     "backing-offset-max", "backing-offset-extensions", "backing-size-zero",
                     "backing-size-1024", "backing-size-max", "backing-lost"):
            with self.subTest(damage=name):
                self.assert_guest_as_sound(name, self.repaired(name, "all"))

    def test_zeros_behind_the_name_go_only_by_name(self):
        path = self.repaired("backing-size-nul", "all", code=0)
        self.assertEqual(self.name_of(path)[-3:], bytes(3))
        path = self.repaired("backing-size-nul", "safe", "--fix", "qcow2-backing-size", code=0)
        self.assertEqual(self.name_of(path), b"disk.qcow2.base")

    def test_a_lost_backing_file_is_given_up_only_by_name(self):
        path = self.repaired("backing-missing", "all", code=0)
        self.assertTrue(self.name_of(path))
        path = self.repaired("backing-missing", "safe", "--fix", "qcow2-backing-missing", code=0)
        self.assertEqual(self.name_of(path), b"")
        self.assertIsNotNone(guest_digest(path))

    def name_of(self, path):
        with Qcow2(path) as image:
            size = image.header["backing_file_size"]
            return image.read(image.header["backing_file_offset"], size)


if __name__ == "__main__":
    main()
