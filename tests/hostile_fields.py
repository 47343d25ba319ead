#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every tool on images of every format, each field of the metadata in turn holding an absurd value:
an answer of the contract, in little address space, in time; nothing written; no byte of a terminal's
language in what is printed; no file opened but the image and what the system itself needs."""
import random
import re

from imglib.fixtures import Bases, all_fixtures
from imglib.programs import BIN, SANITIZED, folder_state, run
from imglib.scribe import Fields, Scribe
from imglib.testing import ImageTest, main, sample

SPACE, SECONDS = 512 << 20, 30  # of address space, with the libraries; per answer, machine busy
TOOLS = (("imgfsck",), ("imgfsck", "--deep", "--json"), ("imgfsck", "--repair=all", "--dry-run"),
         ("imgdump",), ("imgdump", "--map"), ("imgdump", "--json"), ("imgio", "info"),
         ("imgio", "map"), ("imgtriage",))
EVIL = b"\x1b]0;owned\x07\x1b[2J<script>"
SYSTEM = ("/lib", "/usr/", "/etc/", "/proc/", "/sys/", "/dev/")


class HostileFields(ImageTest):
    on_disk = False

    def bases(self):
        """(format, bytes, fields) of sound images."""
        for kind, seed in (("qcow2", 11), ("qcow", 7), ("vpc", 1)):
            self.fresh_folder()
            path = Scribe(self.folder, kind, seed).make()
            fields = Fields(path, kind).found
            data = path.read_bytes()
            chance = random.Random(kind)
            places = [place for each in fields.values()
                      for place in (each if len(each) < 40 else chance.sample(each, 12))]
            yield kind, data, places
        self.fresh_folder()
        fixture = all_fixtures(Bases(self._root))["cow/sound"]
        fixture.build(self.folder)
        data = (self.folder / fixture.file).read_bytes()
        yield "cow", data, [(at, 4) for at in range(0, 64, 4)] + [(at, 4) for at in
                                                                  range(4096, 4196, 20)]

    def cases(self):
        for kind, data, places in self.bases():
            for at, width in places:
                top = 1 << 8 * width
                for value in (top - 1, top // 2, top // 2 - 1, top >> 3):
                    yield kind, data, at, value.to_bytes(width, "big")
                yield kind, data, at, EVIL

    def ask(self, words, path):
        return run("prlimit", f"--as={SPACE}", BIN / words[0], *words[1:], path, timeout=SECONDS)

    def test_answers(self):
        for kind, data, at, bytes_ in sample(self.cases(), 60, 20):
            self.fresh_folder()
            path = self.folder / f"disk.{kind}"
            path.write_bytes(data[:at] + bytes_ + data[at + len(bytes_):])
            before = folder_state(self.folder)
            for words in random.Random(f"{kind} {at} {bytes_}").sample(TOOLS, 3):
                with self.subTest(kind=kind, at=at, bytes=bytes_.hex(), words=words):
                    done = self.ask(words, path)
                    self.assertIn(done.code, (0, 1, 4, 8, 16), done.err)
                    self.assertNotIn("out of memory", done.err)
                    self.assertNotRegex(done.out + done.err, "[\x00-\x08\x0b-\x1f\x7f]")
                    self.assertEqual(folder_state(self.folder), before)

    def unasked(self, name, path):
        if name.startswith(str(self._root)):
            return name not in (str(path), f"{path}.imgfsck-journal")  # of an interrupted repair
        return name != "." and not name.startswith((*SYSTEM, str(BIN)))

    def test_opens_nothing_else(self):
        for kind, data, at, bytes_ in sample(self.cases(), 12, 4):
            self.fresh_folder()
            path, trace = self.folder / f"disk.{kind}", self._root / "trace"
            path.write_bytes(data[:at] + bytes_ + data[at + len(bytes_):])
            for words in (("imgfsck", "--deep"), ("imgdump", "--json"), ("imgtriage",)):
                run("strace", "-f", "-qq", "-o", trace, "-e", "trace=open,openat,openat2,connect",
                    BIN / words[0], *words[1:], path, env={"ASAN_OPTIONS": "detect_leaks=0"})
                told = trace.read_text()
                opened = re.findall(r'open(?:at2?)?\([^"]*"([^"]*)"', told)
                with self.subTest(kind=kind, at=at, bytes=bytes_.hex(), words=words):
                    self.assertIn(str(path), opened)
                    self.assertEqual([name for name in opened if self.unasked(name, path)], [])
                    self.assertNotIn("connect(", told)


# The sanitizers reserve all the address space there is.
if SANITIZED:
    del HostileFields.test_answers

if __name__ == "__main__":
    main()
