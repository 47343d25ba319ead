#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""On images whose only damage is leaked clusters, imgfsck counts as many leaks as qemu-img."""
from imglib.make import Recipe
from imglib.patient import Patient
from imglib.programs import check_json, qemu_check
from imglib.testing import ImageTest, main, summary

RECIPES = [Recipe("plain", "v2", 512), Recipe("plain", "v3", 512, 1), Recipe("plain", "v3", 4096, 2),
           Recipe("snapshots", "v3", 4096, 4), Recipe("zlib", "v3", 4096, 8),
           Recipe("extended-l2", "v3", 16384, 32), Recipe("bitmaps", "v3", 65536, 64),
           Recipe("data-file", "v3", 65536, 16), Recipe("plain", "v3", 2 << 20, 16)]


class LeakCounts(ImageTest):
    def test_leaks_as_qemu_counts_them(self):
        for recipe in RECIPES:
            for lost in (0, 1, 3):
                with self.subTest(recipe=recipe, lost=lost):
                    self.fresh_folder()
                    self.compare(self.leaky(recipe, lost), lost)

    def leaky(self, recipe, lost):
        """An image with seven clusters leaked at its end and `lost` guest clusters unmapped."""
        path = self.sound(recipe)
        patient = Patient(path, f"leaks {recipe} {lost}")
        patient.append_clusters(patient.random.randbytes(7 * patient.cluster_size))
        slots = [s for s in patient.slots() if patient.state(s) == "data"]
        for slot in patient.random.sample(slots, lost):
            patient.set_slot(slot, 0, 0 if patient.extended_l2 else None)
        patient.close()
        return path

    def compare(self, path, lost):
        qemu_code, qemu = qemu_check(path)
        self.assertEqual(qemu_code, 3)
        self.assertGreaterEqual(qemu["leaks"], 7)
        code, document = check_json(path)
        self.assertEqual(code, 4)
        self.assertEqual(document["leaks"], qemu["leaks"], summary(document))
        self.assertEqual(document["corruptions"], 0, summary(document))
        for key in ("image-end-offset", "total-clusters", "allocated-clusters"):
            self.assertEqual(document[key], qemu[key], key)


if __name__ == "__main__":
    main()
