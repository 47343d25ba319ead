#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What is no image, or hardly one: both tools answer in time, within bounded memory, with a sentence
and an exit status of the contract, never by a signal, and write nothing."""
import os
import shutil
import subprocess

from imglib.make import Recipe
from imglib.programs import BIN, SANITIZED, folder_state, run
from imglib.qcow2 import BITMAP_ENTRY, EXT_CRYPTO, HEADER, SNAPSHOT_ENTRY, Qcow2
from imglib.testing import ImageTest, main, sample

SECONDS = 10
# What imgdump can be asked; --db apart, which writes a file.
QUESTIONS = (["--json"], ["--map"], ["--map", "--json"], ["--sql"], ["--hex", "header"],
             ["--hex", "l1"], ["--hex", "l2[0]"], ["--query", "SELECT count(*) FROM finding"],
             ["--query", "SELECT sum(length) FROM mapping", "--query", "SELECT * FROM image"],
             ["--query", "SELECT * FROM field", "--mode", "csv"],
             ["--query", "SELECT count(*), sum(stored) FROM refcount"],
             ["--query", "SELECT kind, sum(length) FROM region GROUP BY kind", "--mode", "jsonl"],
             ["--query", "SELECT * FROM mapping WHERE guest_offset = 9223372036854775807"],
             ["--query", "SELECT * FROM snapshot", "--mode", "json"])
ADDRESS_SPACE = 1 << 30  # bytes; the sanitizers reserve far more and are not held to it


def bounded(*command):
    """Runs with 1 GiB of address space and 10 seconds."""
    limit = [] if SANITIZED else ["prlimit", f"--as={ADDRESS_SPACE}"]
    return run(*limit, *command, timeout=SECONDS * (4 if SANITIZED else 1))


class BadInput(ImageTest):
    on_disk = False
    asked = 0

    def ask(self, path, *words):
        done = bounded(BIN / "imgdump", *words, path)
        self.assertIn(done.code, (0, 8), (words, done.err))
        if done.code == 8:
            self.assertTrue(done.err.strip(), words)

    def both(self, path, allowed, before=None):
        """Runs the check, a repair that writes nothing, and the dump with one more question each
        time; returns the check's result."""
        before = before or folder_state(self.folder)
        check = bounded(BIN / "imgfsck", path)
        self.assertIn(check.code, allowed, check.out + check.err)
        self.assertTrue((check.out + check.err).strip(), "not a word")
        if check.code == 8:
            self.assertTrue(check.err.strip(), "no word on stderr")
            self.assertIn(str(path), check.err)
        dump = bounded(BIN / "imgdump", path)
        self.assertIn(dump.code, (0, 8), dump.err)
        self.assertTrue((dump.out + dump.err).strip())
        self.ask(path, *QUESTIONS[BadInput.asked % len(QUESTIONS)])
        if BadInput.asked % 4 == 0:
            mode = ("safe", "all")[BadInput.asked // 4 % 2]
            tried = bounded(BIN / "imgfsck", f"--repair={mode}", "--dry-run", "--deep", path)
            self.assertIn(tried.code, (0, 4, 8), tried.err)
        BadInput.asked += 1
        self.assertEqual(folder_state(self.folder), before)
        return check

    def refused(self, path, word=""):
        done = self.both(path, (8,))
        self.assertIn(word, done.err)
        repair = bounded(BIN / "imgfsck", "--repair", path)
        self.assertEqual(repair.code, 8)
        self.assertTrue(repair.err.strip())

    def test_files_that_are_no_image(self):
        for name, data in (("empty", b""), ("one-byte", b"Q"), ("three-bytes", b"QFI"),
                           ("text", b"Dear reader, this is a letter.\n" * 300),
                           ("zeros", bytes(100000)), ("ones", b"\xff" * 100000)):
            with self.subTest(file=name):
                path = self.folder / name
                path.write_bytes(data)
                self.refused(path)

    def test_every_question_on_each_of_them(self):
        for name, data in (("empty", b""), ("one-byte", b"Q"), ("text", b"A letter.\n" * 999),
                           ("magic", b"QFI\xfb"), ("version", b"QFI\xfb\0\0\0\3"),
                           ("header", b"QFI\xfb\0\0\0\3" + bytes(96))):
            path = self.folder / name
            path.write_bytes(data)
            before = folder_state(self.folder)
            for words in QUESTIONS:
                for named in ([], ["--format", "qcow2"], ["--format", "raw"]):
                    with self.subTest(file=name, words=words, named=named):
                        self.ask(path, *named, *words)
            for named in (["--format", "qcow2"], ["--format", "vpc"], ["--format", "qcow"],
                          ["--format", "cow"], ["--format", "raw"]):
                with self.subTest(file=name, named=named):
                    done = bounded(BIN / "imgfsck", *named, path)
                    self.assertIn(done.code, (0, 4, 8), done.err)
                    self.assertIn(bounded(BIN / "imgfsck", *named, "--repair=all", "--dry-run",
                                          path).code, (0, 4, 8))
            self.assertEqual(folder_state(self.folder), before)
            path.unlink()

    def test_no_such_file(self):
        self.refused(self.folder / "missing.qcow2")

    def test_directory(self):
        path = self.folder / "folder.qcow2"
        path.mkdir()
        self.refused(path, "directory")

    def test_fifo(self):
        path = self.folder / "pipe.qcow2"
        os.mkfifo(path)
        self.refused(path)

    def test_device(self):
        self.refused("/dev/null")

    def test_unreadable(self):
        path = self.folder / "secret.qcow2"
        path.write_bytes(b"QFI\xfb" + bytes(5000))
        path.chmod(0)
        self.folder.chmod(0o755)
        self.folder.parent.chmod(0o755)
        command = [BIN / "imgfsck", path]
        if os.geteuid() == 0:  # whom no mode stops: ask as nobody, who may not see our folders
            tool = shutil.copy(BIN / "imgfsck", self.folder / "imgfsck")
            command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", tool, path]
        done = run(*command, timeout=SECONDS)
        self.assertEqual(done.code, 8, done.out + done.err)
        self.assertIn("ermission", done.err)

    def test_headers_of_ones_and_zeros(self):
        for version in (2, 3):
            for fill in (b"\0", b"\xff"):
                with self.subTest(version=version, fill=fill):
                    path = self.folder / "header.qcow2"
                    path.write_bytes(b"QFI\xfb\0\0\0" + bytes([version]) + fill * 70000)
                    self.both(path, (4, 8))

    def test_truncated_images(self):
        for recipe in (Recipe("snapshots"), Recipe("bitmaps"), Recipe("zlib", "v2", 512)):
            whole = self.sound(recipe)
            size = whole.stat().st_size
            edges = {0, 1, 4, 8, 71, 72, 103, 104, 112, 511, 512, 4095, 4096, 4097, size - 1}
            lengths = sorted(edges | {size * n // 37 for n in range(37)})
            for length in sample(lengths, 12, 3):
                with self.subTest(recipe=recipe, length=length):
                    os.truncate(shutil.copy(whole, self.folder / "short.qcow2"), length)
                    self.both(self.folder / "short.qcow2", (0, 4, 8))
            self.fresh_folder()

    def test_every_header_field_at_its_limits(self):
        for recipe in (Recipe("snapshots"), Recipe("snapshots", "v2", 512)):
            whole = self.sound(recipe).read_bytes()
            limits = [(name, at, size, value) for name, (at, size) in HEADER.items()
                      for value in (0, 1, (1 << 8 * size - 1) - 1, (1 << 8 * size) - 1)
                      if recipe.compat == "v3" or at < 72]
            for name, at, size, value in sample(limits, 24, 4):
                with self.subTest(recipe=recipe, field=name, value=value):
                    path = self.folder / "field.qcow2"
                    path.write_bytes(whole[:at] + value.to_bytes(size, "big") + whole[at + size:])
                    self.both(path, (0, 4, 8))
            self.fresh_folder()

    def test_every_field_of_tables_at_its_limits(self):
        """The records that the header leads to, field by field: the first and the last of each kind."""
        for recipe in (Recipe("snapshots"), Recipe("bitmaps"), Recipe("luks"), Recipe("backing")):
            sound = self.sound(recipe)
            whole, places = sound.read_bytes(), set()
            with Qcow2(sound) as image:
                for snapshot in (image.snapshots[:1] + image.snapshots[-1:]):
                    places |= {(snapshot.place + at, n) for at, n in SNAPSHOT_ENTRY.values()}
                    places |= {(snapshot.place + 40 + at, 8) for at in (0, 8, 16)}
                for bitmap in image.bitmaps[:1]:
                    places |= {(bitmap.place + at, size) for at, size in BITMAP_ENTRY.values()}
                    places.add((bitmap.table_offset, 8))
                for extension in image.extensions:
                    places |= {(extension.place, 4), (extension.place + 4, 4)}
                    places |= {(extension.place + 8 + at, 8)
                               for at in range(0, min(extension.length, 24), 8)}
                    if extension.type == EXT_CRYPTO:
                        luks = int.from_bytes(extension.data[:8], "big")
                        places |= {(luks + at, size) for at, size in
                                   ((6, 2), (104, 4), (108, 4), (164, 4), (208, 4), (212, 4),
                                    (248, 4), (252, 4))}
                places |= {(place, 8) for _, place, size in image.layers() if size}
                places |= {(image.header["refcount_table_offset"], 8),
                           (image.u64(image.header["refcount_table_offset"]), 8),
                           (next(image.slots()).place, 8)}
            changes = [(at, size, value) for at, size in sorted(places)
                       for value in (0, 1, (1 << 8 * size - 1) - 1, (1 << 8 * size) - 1)]
            for at, size, value in sample(changes, 16, 4):
                with self.subTest(recipe=recipe, at=at, value=value):
                    sound.write_bytes(whole[:at] + value.to_bytes(size, "big") + whole[at + size:])
                    self.both(sound, (0, 4))
            self.fresh_folder()

    def test_usage_errors_answer_16(self):
        path = self.sound(Recipe())
        for words in ((), ("--no-such-option", path), ("--repair=some", path),
                      ("-r", "all", path), ("--output", "x", path),
                      ("--repair", "--output", "x", path, path), ("--fail-on", "joy", path)):
            with self.subTest(words=words):
                done = bounded(BIN / "imgfsck", *words)
                self.assertEqual(done.code, 16, done.out + done.err)
                self.assertTrue(done.err.strip())

    def test_help_and_version_need_no_image(self):
        for tool in ("imgfsck", "imgdump"):
            for option in ("--help", "--version"):
                done = bounded(BIN / tool, option)
                self.assertEqual(done.code, 0, done.err)
                self.assertTrue(done.out.strip())

    def test_closed_output(self):
        """A reader that goes away is no reason to crash."""
        path, _ = self.damaged("l2-text")
        with subprocess.Popen([BIN / "imgfsck", "-v", path], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE) as process:
            process.stdout.close()
            process.stderr.read()
            self.assertIn(process.wait(timeout=60), (4, 8, -13))


if __name__ == "__main__":
    main()
