#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A repair stopped at every system call that changes the disk, by SIGKILL and by errors. Killed: the
image is the old or the new one, or a check answers 8 and says that a repair was interrupted, and
--recover makes it the old or the new one. An error: the image is as it was and the answer is 8."""
from imglib import fixtures_qcow1, fixtures_vhd
from imglib.programs import BIN, LONG, check_json, digest, imgfsck
from imglib.testing import ImageTest, main
from imglib.traced import counts, traced

DAMAGES = ("refcount-block-zeroed-16", "snap-extra-none", "l2-data-crosslink", "vhd/footer-missing",
           "vhd/entry-twice", "qcow/data-crosslink")
ERRORS = {"pwrite64": ("ENOSPC", "EIO"), "pwritev": ("ENOSPC", "EIO"), "fsync": ("EIO",),
          "fdatasync": ("EIO",), "ftruncate": ("ENOSPC",), "fallocate": ("ENOSPC",)}


class KillRepair(ImageTest):
    on_disk = False

    def traced_repair(self, path, inject=None):
        return traced(self.folder / "trace", BIN / "imgfsck", "--repair", "--threads", "1", path,
                      inject=inject)

    def image(self, name):
        """The image with that damage, made anew."""
        if "/" not in name:
            return self.damaged(name)[0]
        self.fresh_folder()
        kind, name = name.split("/")
        if kind == "vhd":
            fixtures_vhd.FIXTURES[name][1](self.folder)
            return self.folder / fixtures_vhd.FILE
        fixtures_qcow1.build(self.folder, name)
        return self.folder / fixtures_qcow1.FILE

    def calls(self, name):
        """(old digest, new digest, {system call: how often a whole repair makes it})."""
        path = self.image(name)
        old = digest(path)
        done = self.traced_repair(path)
        self.assertEqual(done.code, 1, done.out + done.err)
        found = counts(self.folder / "trace")
        self.assertGreater(sum(found.values()), 5)
        return old, digest(path), found

    def numbers(self, count):
        """Which calls of that kind to stop at: every one in a long run, else some."""
        step = 1 if LONG else max(1, count // 3)
        return range(1, count + 1, step)

    def test_killed_at_every_call(self):
        for name in DAMAGES:
            old, new, found = self.calls(name)
            interrupted = 0
            for call, count in found.items():
                for number in self.numbers(count):
                    with self.subTest(damage=name, call=call, number=number):
                        interrupted += self.kill(name, call, number, {old, new})
            self.assertGreater(interrupted, 0, "no kill ever met a repair half done")

    def kill(self, name, call, number, legal):
        """Returns 1 when the kill left a state that a check calls interrupted."""
        path = self.image(name)
        done = self.traced_repair(path, f"{call}:signal=KILL:when={number}")
        self.assertIn(done.code, (-9, 137), done.out + done.err)
        check = imgfsck(path)
        if check.code == 8:
            self.assertIn("interrupted", check.err)
            self.assertIn("--recover", check.err)
        else:
            self.assertIn(check.code, (0, 4), check.out + check.err)
            self.assertIn(digest(path), legal)
        if number % 2:
            recovered = imgfsck("--recover", path)
            self.assertEqual(recovered.code, 0, recovered.out + recovered.err)
            self.assertIn(digest(path), legal)
        # Either way the next repair finishes the work by itself.
        final = imgfsck("--repair", path)
        self.assertIn(final.code, (0, 1), final.out + final.err)
        self.assertEqual(check_json(path)[0], 0)
        self.assertFalse(path.with_name(path.name + ".imgfsck-journal").exists())
        return int(check.code == 8)

    def test_errors_leave_the_image_as_it_was(self):
        for name in DAMAGES:
            old, new, found = self.calls(name)
            for call in set(found) & set(ERRORS):
                for error in ERRORS[call]:
                    for number in self.numbers(found[call]):
                        with self.subTest(damage=name, call=call, error=error, number=number):
                            self.fail_at(name, call, error, number, old, new)

    def fail_at(self, name, call, error, number, old, new):
        path = self.image(name)
        done = self.traced_repair(path, f"{call}:error={error}:when={number}")
        if done.code == 1:  # what failed was not needed for the repair to be whole
            self.assertEqual(digest(path), new)
        else:
            self.assertEqual(done.code, 8, done.out + done.err)
            self.assertTrue(done.err.strip())
            self.assertEqual(digest(path), old)
            self.assertEqual(imgfsck(path).code, 4, "an error handled is no interruption")


if __name__ == "__main__":
    main()
