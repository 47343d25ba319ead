#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the damaged images of the fixtures as seeds for fuzzing, those of at most LIMIT bytes:
FOLDER/FORMAT/NAME. The formats are named as imgfsck names them.

    fuzz_corpus.py FOLDER [LIMIT]"""
import pathlib
import shutil
import sys
import tempfile

from imglib.fixtures import Bases, all_fixtures, built

FORMATS = {"incidents": "qcow2", "vhd": "vpc"}
LIMIT = 1 << 20


def write_corpus(folder, limit):
    """How many images were written."""
    written = 0
    with tempfile.TemporaryDirectory(prefix="imgfsck-") as root:
        for fixture in all_fixtures(Bases(root)).values():
            with built(fixture, root) as made:
                image = made / fixture.file
                if image.stat().st_size > limit:
                    continue
                place = folder / FORMATS.get(fixture.format, fixture.format)
                place.mkdir(parents=True, exist_ok=True)
                # A hole is as good as zeros here, and a seed is small.
                shutil.copyfile(image, place / f"{fixture.format}-{fixture.name}")
                written += 1
    return written


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    count = write_corpus(pathlib.Path(sys.argv[1]),
                         int(sys.argv[2]) if len(sys.argv) == 3 else LIMIT)
    print(f"{count} images")
    sys.exit(0 if count > 0 else 8)
