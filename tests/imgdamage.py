#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Damages a sound qcow2 image in a named way, for tests and for trying imgfsck out.

    imgdamage.py --list                      every way, with the finding it must raise
    imgdamage.py NAME IMAGE [--seed N]       damage IMAGE in place
    imgdamage.py make NAME FILE [--seed N]   make the sound image that NAME needs (QEMU's tools)
"""
import argparse
import sys

import imglib.damage_bitmaps  # noqa: F401  each import registers recipes
import imglib.damage_counts  # noqa: F401
import imglib.damage_header  # noqa: F401
import imglib.damage_mapping  # noqa: F401
import imglib.damage_snapshots  # noqa: F401
import imglib.damage_start  # noqa: F401
from imglib.make import make
from imglib.patient import RECIPES, Unfit, apply


def list_recipes():
    for name, recipe in RECIPES.items():
        codes = " or ".join(f"qcow2-{code}" for code in recipe.codes)
        print(f"{name:28} {codes:40} {recipe.text}")


def main():
    parser = argparse.ArgumentParser(prog="imgdamage", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="list the ways to damage an image")
    parser.add_argument("--seed", type=int, default=1, help="which of the possible victims")
    parser.add_argument("words", nargs="*", metavar="NAME IMAGE")
    options = parser.parse_args()
    words = options.words
    if options.list:
        list_recipes()
        return 0
    name = words[1] if len(words) == 3 and words[0] == "make" else words[0] if words else ""
    if len(words) not in (2, 3) or len(words) == 3 and words[0] != "make":
        parser.error("give NAME and IMAGE, or make NAME FILE, or --list")
    if name not in RECIPES:
        parser.error(f"no way to damage an image is called {name}; see --list")
    if len(words) == 3:
        make(words[2], RECIPES[name].base, options.seed)
        return 0
    try:
        apply(name, words[1], options.seed)
    except Unfit as unfit:
        print(f"imgdamage: {name} does not fit {words[1]}: {unfit}", file=sys.stderr)
        return 8
    return 0


if __name__ == "__main__":
    sys.exit(main())
