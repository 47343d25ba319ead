#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""imgdump --map --json says what qemu-img map --output=json says, on image files without holes."""
import itertools
import json

from imglib.make import CLUSTER_SIZES, Recipe, valid
from imglib.programs import imgdump, qemu_img, qemu_io, run
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

    def test_chains_are_equal(self):
        base, middle, top = (self.folder / name for name in ("base.raw", "mid.qcow2", "top.qcow2"))
        base.write_bytes(bytes(range(1, 251)) * 4096)  # shorter than what stands on it
        qemu_img("create", "-q", "-f", "qcow2", "-b", base.name, "-F", "raw", middle, "3M")
        qemu_io(middle, ["write -P 2 512k 1M", "write -z 2M 128k"])
        qemu_img("create", "-q", "-f", "qcow2", "-b", middle.name, "-F", "qcow2", top, "4M")
        qemu_io(top, ["write -P 3 0 64k", "write -P 4 1M 192k", "write -z 1536k 64k"])
        for _ in range(2):
            expected = qemu_img("map", "--output=json", "-f", "qcow2", top)
            done = imgdump("--map", "--chain", "--json", top)
            self.assertEqual((done.code, done.err), (0, ""))
            self.assertEqual(json.loads(done.out), json.loads(expected))
            self.assertEqual({piece["depth"] for piece in json.loads(expected)}, {0, 1, 2})
            text = imgdump("--map", "--chain", top)
            self.assertEqual(text.out.split(), qemu_img("map", "-f", "qcow2", top).split())
            qemu_img("rebase", "-u", "-f", "qcow2", "-b", str(middle), "-F", "qcow2", top)
        middle.unlink()
        self.assertEqual(imgdump("--map", "--chain", top).code, 8)
        self.assertEqual(imgdump("--map", top).code, 0)


if __name__ == "__main__":
    main()
