#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every way to damage an image ends with --repair=all in an image in which nothing is left to do,
but for the damage listed here, each with the reason why nobody could mend it."""
import random

from imglib.make import Recipe
from imglib.patient import RECIPES, Patient
from imglib.programs import (check_json, guest_copy, guest_digest, qemu_check, qemu_img, qemu_io)
from imglib.qcow2 import COPIED
from imglib.testing import RANK, ImageTest, main, sample, summary

KEY = "the header of the encryption is gone, and with it the key"
LEFT = {
    "luks-magic": KEY, "luks-version": KEY, "luks-cipher": KEY, "luks-slot-iterations": KEY,
    "leak-content": "bytes that nothing refers to are kept, and stay a leak",
    "leak-lost-mapping": "bytes that nothing refers to are kept, and stay a leak",
}


class EveryRepair(ImageTest):
    on_disk = False

    def test_nothing_is_left(self):
        for name in sample(RECIPES, 90, 20):
            with self.subTest(damage=name):
                path, recipe = self.damaged(name)
                code, document = check_json(path, *recipe.options, "--repair=all", "--no-undo")
                if name in LEFT:
                    self.assertEqual(code, 4, "it can be mended: take it off the list")
                    continue
                self.assertIn(code, (0, 1), summary(document))
                _, after = check_json(path, *recipe.options)
                self.assertLess(self.worst(after), RANK["leak"], summary(after))

    def test_top_tables_on_one_another(self):
        """Two layers with one L1 table, or an L1 table taken for an L2 table: both come back."""
        def places(image):
            first, second = image.snapshots[:2]
            active = image.header["l1_table_offset"]
            yield first.place, active
            yield second.place, first.l1_table_offset
            yield 40, first.l1_table_offset
            yield active, first.l1_table_offset | COPIED
        for number in range(4):
            with self.subTest(number=number):
                self.fresh_folder()
                path = self.sound(Recipe("snapshots"))
                names = ("second one", "third", None)
                before = [guest_digest(path, snapshot=name) for name in names]
                hurt = Patient(path)
                hurt.put_uint(list(places(hurt))[number][0], 8, list(places(hurt))[number][1])
                hurt.close()
                code, document = check_json(path, "--repair=all", "--no-undo")
                self.assertEqual(code, 1, summary(document))
                self.assertEqual(qemu_check(path)[0], 0)
                self.assertEqual([guest_digest(path, snapshot=name) for name in names], before)

    def test_part_of_a_stream_is_kept(self):
        """A compressed cluster damaged in the middle: what comes before is kept, the rest listed."""
        path, raw = self.folder / "disk.qcow2", self.folder / "raw"
        words = random.Random(7)
        text = b"".join(b"%d lines of it; " % words.randrange(10**6) for _ in range(4000))[:65536]
        (self.folder / "text").write_bytes(text)
        qemu_img("create", "-q", "-f", "qcow2", path, "1M")
        qemu_io(path, [f"write -c -s {self.folder / 'text'} 65536 65536"])
        hurt = Patient(path)
        place, length = hurt.compressed_span(hurt.slot("compressed").entry)
        hurt.put(place + length // 2, b"\xff" * 64)
        stream = hurt.read(place, length)
        hurt.close()
        code, document = check_json(path, "--deep", "--repair=all", "--no-undo")
        self.assertEqual(code, 1, summary(document))
        lost = [r for r in document["repair"]["lost"] if r["by-repair"]]
        self.assertEqual(len(lost), 1)
        begin = lost[0]["guest-offset"]
        self.assertEqual(begin + lost[0]["guest-length"], 131072)
        self.assertTrue(guest_copy(path, raw))
        kept = next((i for i in range(65536) if raw.read_bytes()[65536 + i] != text[i]), 65536)
        self.assertGreater(kept, 16384)
        self.assertGreaterEqual(begin, 65536 + kept // 512 * 512)
        self.assertEqual(raw.read_bytes()[begin:131072], bytes(131072 - begin))
        self.assertIn(stream, path.read_bytes())


if __name__ == "__main__":
    main()
