#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every tool on what a user may name by mistake: nothing, a folder, a pipe, a socket, a device, a file
that may not be read, a name that a terminal would obey, and the beginnings of images of every format.
An answer in time, an exit status of the contract, a word on standard error when it is 8; what only
reads writes nothing."""
import os
import pathlib
import shutil
import socket
import tempfile

from imglib.fixtures import Bases, all_fixtures
from imglib.programs import BIN, SANITIZED, folder_state, imgio, run
from imglib.testing import ImageTest, main, sample

SECONDS = 20
ODD_NAME = "new\nline \x1b[31mred\x07.img"
LENGTHS = (1, 511, 512, 4096)
# Reading: I is the input, O a file to be made, S a sound image.
READING = [["imgfsck", "I"], ["imgfsck", "--json", "--deep", "I"], ["imgfsck", "--chain", "I"],
           ["imgfsck", "--names", "I"], ["imgfsck", "--repair=all", "--dry-run", "I"],
           ["imgdump", "I"], ["imgdump", "--json", "I"], ["imgdump", "--map", "I"],
           ["imgdump", "--sql", "I"], ["imgdump", "--query", "SELECT count(*) FROM field", "I"],
           ["imgdump", "--hex", "header", "I"], ["imgdump", "--metadata", "O", "I"],
           ["imgdump", "--diff", "I", "S"], ["imgdump", "--diff", "S", "I"],
           ["imgio", "info", "I"], ["imgio", "map", "I"], ["imgio", "read", "I", "0", "512"],
           ["imgio", "compare", "I", "S"], ["imgio", "compare", "S", "I"],
           ["imgio", "convert", "--force", "I", "O"], ["imgio", "snapshot", "list", "I"],
           ["imgio", "bitmap", "list", "I"], ["imgtriage", "I"]]
# Files besides the image that an option names.
BESIDE = [["imgfsck", "--bad-map", "I", "S"], ["imgfsck", "--rollback", "I", "S"],
          ["imgfsck", "--apply", "I", "S"], ["imgfsck", "--password-file", "I", "S"],
          ["imgfsck", "--repair", "--dry-run", "--donor", "I", "S"],
          ["imgdump", "--bad-map", "I", "S"], ["imgtriage", "--rules", "I", "S"],
          ["imgio", "write", "S", "0", "--from", "I"]]
WRITING = [["imgfsck", "--repair=all", "I"], ["imgfsck", "--recover", "I"],
           ["imgio", "write", "I", "0", "--pattern", "7", "--length", "512"],
           ["imgio", "zero", "I", "0", "512"], ["imgio", "discard", "I", "0", "512"],
           ["imgio", "snapshot", "create", "I", "new"], ["imgio", "bitmap", "add", "I", "new"],
           ["imgio", "commit", "I"], ["imgio", "resize", "I", "+1M"]]


class OddInputs(ImageTest):
    on_disk = False

    def setUp(self):
        super().setUp()
        self.aside = self._root / "aside"
        shutil.rmtree(self.aside, ignore_errors=True)
        self.aside.mkdir()
        self.sound_one = self.aside / "sound.qcow2"
        imgio("create", "-f", "qcow2", self.sound_one, "1M")

    def answer(self, words, path, codes, tools=BIN, prefix=(), seconds=SECONDS):
        names = {"I": path, "O": self.aside / "out", "S": self.sound_one}
        tool, *rest = words
        done = run(*prefix, tools / tool, *[names.get(word, word) for word in rest],
                   timeout=seconds * (6 if SANITIZED else 1), stdin=b"")
        text = f"{done.command!r}: exit {done.code}\n{done.out[-500:]}{done.err[-1000:]}"
        self.assertIn(done.code, codes, text)
        if done.code == 8:
            self.assertTrue((done.err + (done.out if tool == "imgtriage" else "")).strip(), text)
        self.assertNotIn("\x1b", done.out + done.err, text)
        self.assertNotIn("\x07", done.out + done.err, text)
        return done

    def special(self):
        """(name, path) of what is no image, and may not even be a file."""
        empty, ones = self.folder / "empty.qcow2", self.folder / "ones.qcow2"
        empty.write_bytes(b"")
        ones.write_bytes(b"\xff" * (1 << 20))
        folder, pipe = self.folder / "folder.qcow2", self.folder / "pipe.qcow2"
        folder.mkdir()
        os.mkfifo(pipe)
        near = pathlib.Path(tempfile.mkdtemp(dir=self._root))  # a socket's name must be short
        server = socket.socket(socket.AF_UNIX)
        self.addCleanup(server.close)
        here = os.getcwd()
        os.chdir(near)
        server.bind("socket")
        os.chdir(here)
        loop = self.folder / "loop.qcow2"
        loop.symlink_to(loop)
        return {"empty": empty, "ones": ones, "folder": folder, "pipe": pipe,
                "socket": near / "socket", "null": "/dev/null", "link to itself": loop,
                "missing": self.folder / "missing.qcow2", "no name": "",
                "terminal": "/dev/tty", "zero": "/dev/zero"}

    @staticmethod
    def refusals(words, file):
        """What no image is answered by: a file of another kind may lie among images, and no repair of
        it was interrupted."""
        if words[0] == "imgtriage":
            return 0, 4, 8
        return (0,) if file and "--recover" in words else (8, 16)

    def test_what_is_no_image(self):
        special = self.special()
        before, sound = folder_state(self.folder), self.sound_one.read_bytes()
        cases = [(name, words) for name in special for words in READING + WRITING]
        for name, words in sample(cases, 160, 30):
            with self.subTest(input=name, words=words):
                self.answer(words, special[name], self.refusals(words, name in ("empty", "ones")))
        # What waits for a pipe's other end does as it is told.
        beside = [(name, words) for name in special for words in BESIDE
                  if name != "pipe" or words[0] == "imgfsck" and words[1] != "--password-file"]
        for name, words in sample(beside, 40, 10):
            with self.subTest(input=name, words=words):
                self.answer(words, special[name], (0, 4, 8, 16))
                if words[0] != "imgio":
                    self.assertEqual(self.sound_one.read_bytes(), sound)
                imgio("create", "--force", "-f", "qcow2", self.sound_one, "1M")
        self.assertEqual(folder_state(self.folder), before)

    def test_a_file_that_may_not_be_read(self):
        secret = self.folder / "secret.qcow2"
        shutil.copy(self.sound_one, secret)
        secret.chmod(0)
        tools, prefix = BIN, []
        for place in (self._root, self.folder, self.aside):
            place.chmod(0o755)
        if os.geteuid() == 0:  # whom no mode stops: ask as nobody, who may not see our folders
            tools = self.aside / "bin"
            tools.mkdir()
            for tool in ("imgfsck", "imgdump", "imgio", "imgtriage"):
                shutil.copy(BIN / tool, tools / tool)
            prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        for words in READING + WRITING:
            with self.subTest(words=words):
                done = self.answer(words, secret, (8,), tools, prefix)
                self.assertIn("ermission", done.err + done.out)

    def test_a_name_that_a_terminal_would_obey(self):
        path = self.folder / ODD_NAME
        for words in READING + WRITING:
            with self.subTest(words=words):
                shutil.copy(self.sound_one, path)
                self.answer(words, path, (0, 1, 8))
                path.write_bytes(b"\xff" * 1000)
                self.answer(words, path, self.refusals(words, True))
                path.unlink()
                self.answer(words, path, (8,))

    def test_beginnings_of_images(self):
        fixtures = all_fixtures(Bases(self._root))
        cases = [(name, length) for name in sorted(fixtures) for length in LENGTHS]
        for name, length in sample(cases, 24, 8):
            self.fresh_folder()
            fixture = fixtures[name]
            fixture.build(self.folder)
            path = self.folder / fixture.file
            os.truncate(path, min(length, path.stat().st_size))
            data = path.read_bytes()
            before = folder_state(self.folder)
            for words in sample(READING, 6, 3) if length != 4096 else READING:
                with self.subTest(fixture=name, length=length, words=words):
                    self.answer(words, path, (0, 1, 4, 8))
            self.assertEqual(folder_state(self.folder), before)
            for words in WRITING:
                with self.subTest(fixture=name, length=length, words=words):
                    self.answer(words, path, (0, 1, 4, 8))
                    path.write_bytes(data)


if __name__ == "__main__":
    main()
