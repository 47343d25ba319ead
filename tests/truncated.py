#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""qcow2 images cut off at every kind of place. A repair that cannot help leaves the file alone; one
that helps ends sound; a second one finds nothing to do, and each can be taken back."""
import os
import random

from imglib.make import Recipe
from imglib.programs import LONG, SANITIZED, check_json, copy, imgfsck, qemu_check
from imglib.qcow2 import Qcow2
from imglib.testing import RANK, ImageTest, main, summary

BASES = [Recipe("plain"), Recipe("snapshots"), Recipe("zlib", "v3", 512), Recipe("luks")]
if LONG:
    BASES += [Recipe("plain", "v2", 65536), Recipe("bitmaps"), Recipe("plain", "v3", 512, 64),
              Recipe("extended-l2", "v3", 16384), Recipe("snapshots", "v2", 512)]


def lengths(path, chance):
    """Ends of tables and places inside them, and some anywhere."""
    with Qcow2(path) as image:
        size, cluster = image.file_size, image.cluster_size
        places = {0, 1, 71, 72, 100, 104, 512, 4096, 65536, cluster, size - 1}
        l1 = image.header["l1_table_offset"]
        places |= {l1, l1 + 1, l1 + 8, l1 + cluster}
        some = chance.sample(range(size), 60 if LONG else 1 if SANITIZED else 4)
        places |= set(some) | {place // cluster * cluster for place in some}
        return sorted(p for p in places if p < size)


class Truncated(ImageTest):
    on_disk = False

    def bad(self, document):
        return [f for f in document["findings"] if RANK[f["severity"]] >= RANK["leak"]]

    def test_truncated(self):
        chance, mended = random.Random("truncated"), 0
        for base in BASES:
            self.fresh_folder()
            path = self.sound(base)
            whole = path.with_name("whole")
            copy(path, whole)
            for length in lengths(whole, chance):
                for mode in ("safe", "all"):
                    with self.subTest(base=base, length=length, mode=mode):
                        copy(whole, path)
                        os.truncate(path, length)
                        mended += self.one(path, mode, base.content == "luks")
        self.assertGreater(mended, 5)

    def one(self, path, mode, luks):
        before = path.read_bytes()
        _, damaged = check_json(path, "--format", "qcow2")
        code, document = check_json(path, "--format", "qcow2", f"--repair={mode}")
        after = path.read_bytes()
        again, left = check_json(path, "--format", "qcow2")
        if code == 1:
            self.assertEqual(again, 0, summary(left))
            self.assertEqual(qemu_check(path, luks)[0], 0)
        else:
            self.assertIn(code, (0, 4), summary(document))
        if len(after) > len(before):
            self.assertLess(len(self.bad(left)), len(self.bad(damaged)),
                            f"grew for nothing: {summary(left)}")
        self.assertLessEqual(len(self.bad(left)), len(self.bad(damaged)), summary(left))
        second, document = check_json(path, "--format", "qcow2", f"--repair={mode}")
        self.assertEqual(second, 4 if code == 4 else 0, summary(document))
        self.assertEqual(path.read_bytes(), after, "the second repair wrote something")
        undo = path.with_name(path.name + ".imgfsck-undo")
        self.assertEqual(undo.exists(), after != before)
        if undo.exists():
            self.assertEqual(imgfsck("--rollback", undo, path).code, 0)
            self.assertEqual(path.read_bytes(), before)
            undo.unlink(missing_ok=True)
        return code == 1


if __name__ == "__main__":
    main()
