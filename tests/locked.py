#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""An image that a QEMU process has open: a check works and warns, a repair is refused. And the other
way round: while imgfsck writes, QEMU cannot have the image."""
import contextlib
import subprocess
import time

from imglib.make import Recipe
from imglib.programs import BIN, LONG, SANITIZED, digest, folder_state, imgfsck, run
from imglib.testing import ImageTest, main


@contextlib.contextmanager
def held_by_qemu(path, *options):
    """qemu-io with the image open, waiting for commands."""
    with subprocess.Popen(["qemu-io", "-f", "qcow2", *options, str(path)], text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT) as process:
        process.stdin.write("length\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        assert "MiB" in answer or "KiB" in answer, answer
        try:
            yield
        finally:
            process.stdin.close()
            process.wait(timeout=30)


class Locked(ImageTest):
    def test_repair_is_refused(self):
        for options in ((), ("-r",)):
            with self.subTest(qemu=options):
                path, _ = self.damaged("leak-zero-16")
                with held_by_qemu(path, *options):
                    before = folder_state(self.folder)
                    done = imgfsck("--repair", path)
                    self.assertEqual(done.code, 8, done.out + done.err)
                    self.assertRegex(done.err, "running program|in use")
                    self.assertEqual(folder_state(self.folder), before)
                self.assertEqual(imgfsck("--repair", path).code, 1)

    def test_check_works_with_a_warning(self):
        path, _ = self.damaged("leak-zero-16")
        quiet = imgfsck(path)
        with held_by_qemu(path):
            before = folder_state(self.folder)
            done = imgfsck(path)
            self.assertEqual(done.code, 4, done.out + done.err)
            self.assertEqual(folder_state(self.folder), before)
        self.assertNotEqual(done.out + done.err, quiet.out + quiet.err)
        self.assertIn("running program", done.out + done.err)
        self.assertIn("(image-in-use)", done.out)

    def test_dry_run_and_output_touch_nothing_of_a_held_image(self):
        path, _ = self.damaged("leak-zero-16")
        with held_by_qemu(path):
            before = digest(path)
            self.assertIn(imgfsck("--repair", "--dry-run", path).code, (4, 8))
            self.assertEqual(digest(path), before)

    def test_imgio_reads_with_a_warning_and_does_not_write(self):
        path = self.sound(Recipe())
        reading = (["map", path], ["convert", "--force", path, self.folder / "out"])
        writing = (["write", path, 0, "--pattern", 1, "--length", 1], ["zero", path, 0, 512],
                   ["resize", path, "+1M"], ["snapshot", "create", path, "s"],
                   ["convert", "-n", "-f", "raw", "/dev/null", path],
                   ["create", "--force", "-f", "qcow2", path, "1M"])
        with held_by_qemu(path):
            before = digest(path)
            for words in reading:
                done = run(BIN / "imgio", *words)
                self.assertEqual(done.code, 0, done.err)
                self.assertIn("running program", done.err)
                self.assertEqual(run(BIN / "imgio", words[0], "-U", *words[1:]).err, "")
            for words in writing:
                done = run(BIN / "imgio", *words)
                self.assertEqual(done.code, 8, done.out)
                self.assertTrue(done.err)
            self.assertEqual(digest(path), before)
        for words in reading:
            self.assertEqual(run(BIN / "imgio", *words).err, "")

    def test_qemu_is_kept_out_while_a_repair_writes(self):
        path, _ = self.damaged("refcount-block-zeroed-16")
        command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e",
                   "inject=fsync,fdatasync:delay_enter=300000", str(BIN / "imgfsck"), "--repair",
                   str(path)]
        # Beside the image as long as a repair is under way; its locks are held by then.
        journal = path.with_name(path.name + ".imgfsck-journal")
        refused = 0
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              env={"ASAN_OPTIONS": "detect_leaks=0"}) as repair:
            while repair.poll() is None and not refused:
                if journal.exists():
                    # Asks for the locks that a writer takes, and writes nothing.
                    done = run("qemu-io", "-f", "qcow2", "-c", "length", path)
                    refused += "lock" in done.err + done.out
                time.sleep(0.01)
            repair.communicate(timeout=120)
        self.assertEqual(repair.returncode, 1)
        self.assertGreater(refused, 0)
        self.assertEqual(imgfsck(path).code, 0)

    def test_two_repairs_at_once(self):
        rounds = 100 if LONG else 4 if SANITIZED else 10
        for number in range(rounds):
            path, _ = self.damaged("refcount-block-zeroed-16")
            old = digest(path)
            both = [subprocess.Popen([str(BIN / "imgfsck"), "--repair", str(path)], text=True,
                                     stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                    for _ in range(2)]
            time.sleep(number * 0.001)
            # A check meanwhile changes nothing and calls nothing half done clean.
            during = imgfsck(path)
            said = [process.communicate(timeout=120) for process in both]
            codes = sorted(process.returncode for process in both)
            with self.subTest(number=number, codes=codes, said=said):
                self.assertIn(1, codes)
                # The other one came late, or was refused; never does it call the image beyond help.
                self.assertIn(sum(codes) - 1, (0, 8))
                self.assertIn(during.code, (0, 4, 8), during.out + during.err)
                self.assertEqual(imgfsck(path).code, 0)
                undo = path.with_name(path.name + ".imgfsck-undo")
                self.assertEqual({file.name for file in self.folder.iterdir()},
                                 {path.name, undo.name})
                self.assertEqual(imgfsck("--rollback", undo, path).code, 0)
                self.assertEqual(digest(path), old)


if __name__ == "__main__":
    main()
