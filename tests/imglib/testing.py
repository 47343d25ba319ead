# SPDX-License-Identifier: Apache-2.0
"""What every image test starts from: a folder of its own, sound images made once per kind and
copied, samples that are the same in every run."""
import random
import shutil
import unittest

import imgdamage  # noqa: F401  registers the recipes
from imglib import patient
from imglib.make import make
from imglib.programs import LONG, SANITIZED, copy, temp_dir

RANK = {"info": 0, "warning": 1, "leak": 2, "corruption": 3}
QEMU_KEYS = ("filename format check-errors image-end-offset total-clusters allocated-clusters "
             "fragmented-clusters compressed-clusters corruptions leaks").split()


def sample(things, ordinary, sanitized=None):
    """A seeded choice of so many; all of them in a long run."""
    things = list(things)
    count = sanitized if SANITIZED and sanitized is not None else ordinary
    if LONG or count >= len(things):
        return things
    return random.Random(20240501).sample(things, count)


class ImageTest(unittest.TestCase):
    """Every test has an empty folder `self.folder`; in memory, for tests that repair much and write
    little."""
    maxDiff = 4000
    on_disk = True

    @classmethod
    def setUpClass(cls):
        cls._stack = temp_dir(cls.on_disk)
        cls._root = cls._stack.__enter__()
        cls._bases = {}

    @classmethod
    def tearDownClass(cls):
        cls._stack.__exit__(None, None, None)

    def setUp(self):
        self.folder = self._root / "work"
        self.fresh_folder()

    def fresh_folder(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()

    def sound(self, recipe, name="disk.qcow2", keep=True):
        """A sound image of that kind in the folder. Made once, then copied, unless keep is False;
        one with a data file names it by an absolute path and so is always made anew."""
        path = self.folder / name
        if not keep or recipe.content.startswith("data-file"):
            make(path, recipe)
            return path
        key = (recipe, name)
        if key not in self._bases:
            home = self._root / f"base{len(self._bases)}"
            home.mkdir()
            make(home / name, recipe)
            self._bases[key] = home
        for file in self._bases[key].iterdir():
            copy(file, self.folder / file.name)
        return path

    def damaged(self, name, seed=1, fresh=True):
        """(image damaged by the recipe, the recipe); the folder holds nothing else, if fresh."""
        if fresh:
            self.fresh_folder()
        recipe = patient.RECIPES[name]
        path = self.sound(recipe.base)
        patient.apply(name, path, seed)
        return path, recipe

    def worst(self, document):
        """The highest severity among the findings, as a number."""
        return max((RANK[f["severity"]] for f in document["findings"]), default=0)


def codes(document):
    return {finding["code"] for finding in document["findings"]}


def summary(document):
    """The findings in short, for messages of a failing test."""
    return [f"{f['code']} ({f['severity']}, {f['structure']}, x{f['count']})"
            for f in document["findings"][:12]]


def main():
    unittest.main(verbosity=1)
