#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What fuzzing found: inputs that once broke a promise (tests/fuzz/finds/TARGET.WHAT.xz) break none
any more."""
import lzma
import pathlib

from imglib.programs import BIN, run
from imglib.testing import ImageTest, main

SMOKE = BIN.parent / "tests" / "fuzz" / "fuzz_smoke"
FINDS = pathlib.Path(__file__).resolve().parent / "fuzz" / "finds"


class FuzzFinds(ImageTest):
    def test_promises_are_kept(self):
        finds = sorted(FINDS.glob("*.xz"))
        self.assertTrue(finds)
        for find in finds:
            with self.subTest(find=find.name):
                path = self.folder / "input"
                path.write_bytes(lzma.decompress(find.read_bytes()))
                done = run(SMOKE, find.name.split(".")[0], "--file", path)
                self.assertEqual(done.code, 0, done.out + done.err)


if __name__ == "__main__":
    main()
