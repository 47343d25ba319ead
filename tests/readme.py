#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What README.md shows of a session is what happens: the commands of its first block are run on the
image that it speaks of, and print what stands there.

    readme.py --renew    writes the output in README.md anew
"""
import pathlib
import re
import shlex
import sys

from imglib.make import Recipe
from imglib.patient import apply
from imglib.programs import BIN, run
from imglib.testing import ImageTest, main

README = pathlib.Path(__file__).resolve().parent.parent / "README.md"
BLOCK = re.compile(r"```\n(\$ imgfsck .*?)```\n", re.DOTALL)
IMAGE = "vm.qcow2"


class Readme(ImageTest):
    def session(self, commands):
        """The commands with what they print."""
        path = self.sound(Recipe("plain", "v3", 65536), name=IMAGE)
        apply("l2-data-crosslink", path)
        shown = []
        for command in commands:
            words = shlex.split(command)
            words[0] = BIN / words[0]
            done = run(*words, cwd=self.folder)
            self.assertIn(done.code, (0, 1, 4), done.err)
            shown.append(f"$ {command}\n{done.out}{done.err}")
        return "\n".join(shown)

    def test_the_session_is_real(self):
        text = README.read_text()
        block = BLOCK.search(text)
        commands = re.findall(r"^\$ (.*)$", block[1], re.MULTILINE)
        self.assertGreaterEqual(len(commands), 4)
        session = self.session(commands)
        if RENEW:
            README.write_text(text[:block.start(1)] + session + text[block.end(1):])
            return
        self.assertEqual(block[1], session, "readme.py --renew accepts this")

    def test_programs_and_pages_that_it_names_are_there(self):
        text = README.read_text()
        for name in set(re.findall(r"\b(?:scripts|docs|tests)/[\w./-]*\w", text)):
            self.assertTrue((README.parent / name).exists(), name)
        for option in set(re.findall(r"(--[a-z][a-z-]+)", text)):
            known = run(BIN / "imgfsck", "--help").out + run(BIN / "imgdump", "--help").out
            self.assertTrue(option in known or f"cmake {option}" in text or f"{option} " in text
                            and option in ("--preset", "--build", "--install"), option)


RENEW = "--renew" in sys.argv
if RENEW:
    sys.argv.remove("--renew")

if __name__ == "__main__":
    main()
