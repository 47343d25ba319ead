#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Repair, --apply, --rollback and --recover as real processes, with a system call of theirs failing
or the process killed in it: every read, write, sync, truncate, open, lock, rename and removal that
they make, one after the other (a seeded sample of them in an ordinary run). Afterwards the image is
the old or the new one, or a check answers 8 and --recover makes it one of the two; what was asked
for can be done then, and taken back to the byte."""
import re

from imglib.programs import BIN, SANITIZED, digest, imgfsck, run
from imglib.testing import ImageTest, main, sample

DAMAGE = "refcount-block-zeroed-16"
ERRORS = {"pread64": ("EIO", "EINTR"), "read": ("EIO", "EINTR"),
          "pwrite64": ("EIO", "ENOSPC", "EINTR"), "write": ("EIO", "ENOSPC"),
          "fsync": ("EIO", "EINTR"), "fdatasync": ("EIO", "EINTR"),
          "ftruncate": ("EIO", "ENOSPC", "EINTR"), "fallocate": ("EIO", "ENOSPC"),
          "openat": ("EACCES", "EMFILE", "EINTR"), "fcntl": ("EAGAIN", "ENOLCK", "EINTR"),
          "unlink": ("EACCES", "EIO"), "rename": ("EIO",), "renameat2": ("EIO", "ENOSPC"),
          "lseek": ("EIO",), "newfstatat": ("EACCES",), "fstat": ("EIO",)}
CHANGES = {"pwrite64", "write", "fsync", "fdatasync", "ftruncate", "fallocate", "unlink", "rename",
           "renameat2"}
# The leak checker cannot run under a tracer.
TRACED = {"ASAN_OPTIONS": "detect_leaks=0"}


class FaultCalls(ImageTest):
    on_disk = False

    def traced(self, words, *inject):
        return run("strace", "-f", "-qq", "-o", self.folder.parent / "trace", "-e",
                   "trace=" + ",".join(ERRORS), *inject, BIN / "imgfsck", "--threads", "1", *words,
                   env=TRACED)

    # Each prepares an image and returns (path, words for imgfsck, digests that may be left).

    def repair(self):
        path, _ = self.damaged(DAMAGE)
        return path, ["--repair", path], {digest(path), self.new}

    def apply(self):
        path, _ = self.damaged(DAMAGE)
        plan = self.folder / "plan"
        imgfsck("--repair", "--plan", plan, path)
        return path, ["--apply", plan, path], {digest(path), self.new}

    def rollback(self):
        path, _ = self.damaged(DAMAGE)
        old = digest(path)
        self.assertEqual(imgfsck("--repair", path).code, 1)
        return path, ["--rollback", f"{path}.imgfsck-undo", path], {old, self.new}

    def recover(self):
        path, _ = self.damaged(DAMAGE)
        old = digest(path)
        # Behind the record and the pointer: the first write into the image itself.
        done = self.traced(["--repair", path], "-P", path, "-e", "inject=pwrite64:signal=KILL:when=1")
        self.assertIn(done.code, (-9, 137))
        self.assertEqual(imgfsck(path).code, 8)
        return path, ["--recover", path], {old, self.new}

    def setUp(self):
        super().setUp()
        path, _ = self.damaged(DAMAGE)
        self.old = digest(path)
        self.assertEqual(imgfsck("--repair", path).code, 1)
        self.new = digest(path)

    def calls(self, path):
        """(call, number) of each call that the last traced run made after it first named the
        image's folder: before that it is the loader's."""
        counts, found, started = {}, [], False
        for line in (self.folder.parent / "trace").read_text().splitlines():
            match = re.match(r"\d*\s*(\w+)\(", line)
            if not match:
                continue
            call = match[1]
            counts[call] = counts.get(call, 0) + 1
            started |= path.name in line
            if started:
                found.append((call, counts[call]))
        return found

    def cases(self, prepare):
        path, words, _ = prepare()
        done = self.traced(words)
        self.assertIn(done.code, (0, 1), done.err)
        all_cases = []
        for call, number in self.calls(path):
            if SANITIZED and call == "write":
                continue  # the sanitizers' own: they probe memory with it
            all_cases += [(call, number, f"error={error}") for error in ERRORS[call]]
            if call in CHANGES:
                all_cases.append((call, number, "signal=KILL"))
        return sample(all_cases, 30, 16)

    def loop(self, prepare):
        stopped = 0
        for call, number, what in self.cases(prepare):
            path, words, legal = prepare()
            done = self.traced(words, "-e", f"inject={call}:{what}:when={number}")
            with self.subTest(call=call, number=number, what=what, code=done.code, err=done.err):
                killed = done.code in (-9, 137)
                self.assertTrue(killed if "KILL" in what else done.code in (0, 1, 4, 8))
                stopped += killed or done.code == 8
                self.assert_one_of_the_two(path, legal)
                self.assert_goes_on(path, prepare)
        return stopped

    def assert_one_of_the_two(self, path, legal):
        check = imgfsck(path)
        if check.code == 8:
            self.assertIn("interrupted", check.err)
            recovered = imgfsck("--recover", path)
            self.assertEqual(recovered.code, 0, recovered.err)
            self.assertIn(digest(path), legal)
        else:
            self.assertIn(digest(path), legal)
            self.assertEqual(check.code, 0 if digest(path) == self.new else 4)

    def assert_goes_on(self, path, prepare):
        """What was asked for works now, and can be taken back."""
        undo = path.with_name(path.name + ".imgfsck-undo")
        if prepare == self.rollback:
            self.assertEqual(imgfsck("--rollback", undo, path).code, 0)
            self.assertEqual(digest(path), self.old)
            return
        repaired = imgfsck("--repair", path)
        self.assertIn(repaired.code, (0, 1), repaired.err)
        self.assertEqual(digest(path), self.new)
        # An attempt that failed leaves no record, or one of which nothing is to be taken back.
        records = sorted(self.folder.glob(path.name + ".imgfsck-undo*"))
        answers = [imgfsck("--rollback", record, path).code for record in records]
        self.assertIn(0, answers, records)
        self.assertEqual(digest(path), self.old)

    def test_repair(self):
        self.assertGreater(self.loop(self.repair), 0)

    def test_apply(self):
        self.assertGreater(self.loop(self.apply), 0)

    def test_rollback(self):
        self.assertGreater(self.loop(self.rollback), 0)

    def test_recover(self):
        self.assertGreater(self.loop(self.recover), 0)


if __name__ == "__main__":
    main()
