#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every named damage, against what imgfsck is expected to say of it, word for word:
fixtures/FORMAT/NAME/expect.check, of the damaged image; expect.repair, of a safe repair, and of
`--repair=all` when that leaves something; expect.recheck, of the repaired image.

    fixtures.py --renew [FORMAT/NAME...]   writes these files anew; look at `git diff` afterwards

Whatever is said: a check and a dry run write nothing, a second repair has nothing to do, and the
rollbacks restore every byte. And every problem that the registry knows must be raised by some test,
or stand in NEVER_RAISED with the reason; every pass must do something in some fixture."""
import multiprocessing
import os
import pathlib
import re
import shutil
import sys
import traceback

from imglib.fixtures import Bases, all_fixtures, built
from imglib.programs import folder_state, imgfsck
from imglib.testing import ImageTest, main, sample

HERE = pathlib.Path(__file__).resolve().parent
FOLDER = HERE / "fixtures"
STEPS = ("check", "repair", "recheck")
PASSES = {"qcow2": "qcow2", "vhd": "vhd"}  # folders of repair/; unit tests try each of the others
PASS = re.compile(r'\{\s*"[a-z0-9-]+",\s*\d+,\s*"([^"]+)"')

# Problems that no test raises, and why.
NEVER_RAISED = {
    "image-repair-interrupted": "a check of such an image answers 8 and says what to do",
}


def transcript(folder, fixture, *more):
    """(exit status, the command with what it prints)."""
    options = [*fixture.options, *more, *(fixture.repair if more else ())]
    done = imgfsck(*options, fixture.file, cwd=folder)
    words = " ".join(["$ imgfsck", *options, fixture.file])
    return done.code, f"{words}\n{done.out}{done.err}exit status {done.code}\n"


def must_be(folder, state, what):
    if folder_state(folder) != state:
        raise AssertionError(f"{what} wrote something")


def roll_back(folder, fixture, before):
    """Takes back what was repaired, the last repair first."""
    undo = folder / f"{fixture.file}.imgfsck-undo"
    for record in (undo.with_name(undo.name + ".2"), undo):
        if record.exists():
            done = imgfsck("--rollback", record, fixture.file, cwd=folder)
            if done.code != 0:
                raise AssertionError(f"the rollback failed: {done.err}")
            record.unlink()
    after = folder_state(folder)
    if {n: (s.digest, s.size) for n, s in after.items()} != {
            n: (s.digest, s.size) for n, s in before.items()}:
        raise AssertionError("the rollback did not restore every byte")


def transcripts(fixture, root):
    """What the three steps print, by step. Raises where what holds for every image does not."""
    with built(fixture, root) as folder:
        before = folder_state(folder)
        _, check = transcript(folder, fixture)
        for mode in ("safe", "all"):
            transcript(folder, fixture, f"--repair={mode}", "--dry-run")
        must_be(folder, before, "a check or a dry run")
        mode = "--repair"
        code, repair = transcript(folder, fixture, mode)
        if code == 4:
            mode = "--repair=all"
            code, text = transcript(folder, fixture, mode)
            repair += "\n" + text
        repaired = folder_state(folder)
        again, _ = transcript(folder, fixture, mode)
        must_be(folder, repaired, "a second repair")
        if again != (4 if code == 4 else 0):
            raise AssertionError(f"the second repair answers {again}, the first {code}")
        left, recheck = transcript(folder, fixture)
        if code == 1 and left != 0:
            raise AssertionError("all repaired, but a check answers " + str(left))
        roll_back(folder, fixture, before)
        return dict(zip(STEPS, (check, repair, recheck)))


class Fixtures(ImageTest):
    on_disk = False

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.bases = Bases(cls._root)
        cls.fixtures = all_fixtures(cls.bases)

    def chosen(self):
        if RENEW is None:
            return sample(self.fixtures, len(self.fixtures), 25)
        return [key for key in self.fixtures
                if not RENEW or key in RENEW or key.split("/")[0] in RENEW]

    def test_words(self):
        keys = self.chosen()
        self.assertTrue(keys, "no such fixture")
        self.bases.prepare(self.fixtures[key].base for key in keys if self.fixtures[key].base)
        # Forked: a function of this module could not be sent to other processes by name alone.
        with multiprocessing.get_context("fork").Pool(os.cpu_count(), init_worker,
                                                      (self.fixtures, self._root)) as pool:
            for key, texts, failure in pool.imap_unordered(work, keys, 4):
                with self.subTest(fixture=key):
                    self.assertIsNone(failure, failure)
                    for step, text in texts.items():
                        self.compare(FOLDER / key / f"expect.{step}", key, text)

    def compare(self, file, key, text):
        if RENEW is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        self.assertTrue(file.exists(), f"{file} is missing: fixtures.py --renew {key}")
        self.assertEqual(file.read_text(), text, f"fixtures.py --renew {key} accepts this")

    def test_no_fixture_without_a_recipe(self):
        there = {str(file.parent.relative_to(FOLDER)) for file in FOLDER.glob("*/*/expect.*")}
        if RENEW is not None:
            for key in there - self.fixtures.keys():
                shutil.rmtree(FOLDER / key)
            return
        self.assertEqual(there, self.fixtures.keys())


def init_worker(fixtures, root):
    global FIXTURES, ROOT  # pylint: disable=global-statement
    FIXTURES, ROOT = fixtures, root


def work(key):
    try:
        return key, transcripts(FIXTURES[key], ROOT), None
    except Exception:  # pylint: disable=broad-except
        return key, None, traceback.format_exc()


class EveryProblem(ImageTest):
    """That each row of the registry is raised by something."""

    def raised(self):
        """The codes in the words of the fixtures."""
        found = set()
        for file in FOLDER.glob("*/*/expect.check"):
            found |= set(re.findall(r"\((?:[a-z0-9]+-)+[a-z0-9]+\)", file.read_text()))
        return {code.strip("()") for code in found}

    def test_each_is_raised(self):
        registry = (HERE.parent / "model" / "problems.def").read_text()
        problems = dict(re.findall(r'X\((k\w+), \d+, "([a-z0-9-]+)"', registry))
        self.assertGreater(len(problems), 250)
        raised = self.raised()
        # The other formats' checkers are tested in C++, by the registry's name or by the code.
        files = [*(HERE / "unit").rglob("*.cc"), *(HERE / "unit").rglob("*.h"), *HERE.glob("*.py")]
        words = set(re.findall(r"[\w-]+", "\n".join(file.read_text() for file in files
                                                   if file != pathlib.Path(__file__))))
        missing = {code for name, code in problems.items() if code not in raised
                   and (code.startswith("qcow2-") or not words & {code, name})}
        self.assertEqual(missing - NEVER_RAISED.keys(), set(), "raised by no test")
        self.assertEqual(NEVER_RAISED.keys() - set(problems.values()), set(), "no such problem")

    def test_each_pass_does_something(self):
        """By the sentence that a pass reports what it did with."""
        formats = {file.parent.parent.name for file in FOLDER.glob("*/*/expect.repair")}
        for name in sorted(formats & PASSES.keys()):
            done = "\n".join(file.read_text() for file in FOLDER.glob(f"{name}/*/expect.repair"))
            sentences = set()
            for source in (HERE.parent / "repair" / PASSES[name]).glob("*.cc"):
                sentences |= set(PASS.findall(source.read_text()))
            self.assertGreater(len(sentences), 3, name)
            for sentence in sentences:
                with self.subTest(format=name):
                    self.assertTrue(f"done: {sentence}\n" in done, f"never done: {sentence}")


RENEW = None
if "--renew" in sys.argv:
    at = sys.argv.index("--renew")
    RENEW = sys.argv[at + 1:]
    del sys.argv[at:]
    sys.argv.append("Fixtures")

if __name__ == "__main__":
    main()
