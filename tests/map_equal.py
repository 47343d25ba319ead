#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""imgdump --map --json says what qemu-img map --output=json says, on image files without holes."""
import itertools
import json

from imglib.make import CLUSTER_SIZES, Recipe, valid
from imglib.programs import imgdump, qemu_img, run
from imglib.testing import ImageTest, main, sample

CONTENTS = ("plain", "snapshots", "zlib", "zstd", "extended-l2", "bitmaps")


class MapEqual(ImageTest):
    def test_maps_are_equal(self):
        combinations = [r for r in (Recipe(content, compat, size) for content, compat, size in
                                    itertools.product(CONTENTS, ("v2", "v3"), CLUSTER_SIZES))
                        if valid(r) and r.cluster_size <= 1 << 20]
        for recipe in sample(combinations, 30, 12):
            with self.subTest(recipe=recipe):
                self.fresh_folder()
                sparse = self.sound(recipe, "sparse.qcow2", keep=False)
                path = self.folder / "disk.qcow2"
                run("cp", "--sparse=never", sparse, path, check=True)
                self.compare(path)

    def compare(self, path):
        expected = json.loads(qemu_img("map", "--output=json", "-f", "qcow2", path))
        done = imgdump("--map", "--json", path)
        self.assertEqual(done.code, 0, done.err)
        self.assertGreater(len(expected), 10)
        self.assertEqual(json.loads(done.out), expected)


if __name__ == "__main__":
    main()
