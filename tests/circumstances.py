#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Where images live and what may happen meanwhile: block devices, media with unreadable sectors, full
disks, too little memory, a signal in the middle, and what is said while it takes long."""
import contextlib
import os
import pty
import signal
import subprocess
import time
import unittest

from imglib.claims import Claims
from imglib.make import MB, Recipe
from imglib.patient import Patient
from imglib.programs import (BIN, SANITIZED, check_json, copy, digest, folder_state, imgfsck,
                             qemu_check, qemu_img, run)
from imglib.qcow2 import Qcow2
from imglib.testing import ImageTest, codes, main, sample

DAMAGE = "refcount-block-zeroed-16"  # mended by a safe repair
TRACED = {"ASAN_OPTIONS": "detect_leaks=0"}


@contextlib.contextmanager
def loop_device(file):
    """A block device over the file; None where the kernel gives none."""
    done = run("losetup", "--find", "--show", file)
    if done.code != 0:
        yield None
        return
    device = done.out.strip()
    try:
        yield device
    finally:
        run("losetup", "--detach", device, check=True)


@contextlib.contextmanager
def small_disk(folder, size):
    """A file system of so many bytes mounted at the folder; False where nothing may be mounted."""
    folder.mkdir(exist_ok=True)
    done = run("mount", "-t", "tmpfs", "-o", f"size={size}", "imgfsck-test", folder)
    try:
        yield done.code == 0
    finally:
        if done.code == 0:
            run("umount", folder, check=True)


def slowed(*command, call="pread64", microseconds=100000):
    """The command with every such system call made slower."""
    return ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e",
            f"inject={call}:delay_enter={microseconds}", *map(str, command)]


class BlockDevice(ImageTest):
    """qcow2 on a volume: larger than the image, never shorter or longer afterwards."""

    def test_check_repair_and_rollback(self):
        path, _ = self.damaged(DAMAGE)
        with open(path, "r+b") as file:
            file.truncate(4 * MB)
            file.seek(3 * MB)
            file.write(b"the rest of the volume" * 1000)  # what the volume held before
        old = digest(path)
        undo = self.folder / "undo"
        with loop_device(path) as device:
            if device is None:
                raise unittest.SkipTest("no loop device to be had")
            code, document = check_json(device)
            self.assertEqual(code, 4)
            self.assertEqual(document["file-size"], 4 * MB)
            self.assertEqual(imgfsck("--repair", "--undo", undo, device).code, 1)
            self.assertEqual(imgfsck(device).code, 0)
            self.assertEqual(qemu_check(device)[0], 0)
        self.assertEqual(path.stat().st_size, 4 * MB)
        self.assertNotEqual(digest(path), old)
        with loop_device(path) as device:
            done = imgfsck("--rollback", undo, device)
            self.assertEqual(done.code, 0, done.err)
        self.assertEqual(digest(path), old)

    def test_output_onto_a_file_and_dump(self):
        path, _ = self.damaged(DAMAGE)
        with open(path, "r+b") as file:
            file.truncate(4 * MB)
        with loop_device(path) as device:
            if device is None:
                raise unittest.SkipTest("no loop device to be had")
            out = self.folder / "out.qcow2"
            self.assertEqual(imgfsck("--repair", "--output", out, device).code, 1)
            self.assertEqual(run(BIN / "imgdump", "--map", "--json", device).out,
                             run(BIN / "imgdump", "--map", "--json", path).out)
        self.assertEqual(imgfsck(out).code, 0)

    def test_a_repair_that_needs_more_room_than_the_volume_has(self):
        path, _ = self.damaged("l2-data-crosslink-counted")  # a copy of the shared cluster
        with Patient(path) as image:  # and all the clusters that are there are in use
            for cluster in range(image.file_size // image.cluster_size):
                if image.stored(cluster) == 0:
                    image.set_count(cluster, 1)
                    image.put(cluster * image.cluster_size, b"held" * (image.cluster_size // 4))
        old = digest(path)
        with loop_device(path) as device:
            if device is None:
                raise unittest.SkipTest("no loop device to be had")
            done = imgfsck("--repair", "--orphans", "keep", "--undo", self.folder / "undo", device)
            self.assertIn(done.code, (4, 8), done.out + done.err)
        self.assertEqual(digest(path), old)
        self.assertFalse((self.folder / "undo").exists())


class BadMedium(ImageTest):
    """--bad-map: what a copying program could not read, in ddrescue's words."""

    def write_map(self, ranges, size):
        lines, at = ["# Mapfile. Created by GNU ddrescue version 1.27", "0x00 ? 1"], 0
        for start, length in ranges:
            if start > at:
                lines.append(f"0x{at:X} 0x{start - at:X} +")
            lines.append(f"0x{start:X} 0x{length:X} -")
            at = start + length
        lines.append(f"0x{at:X} 0x{size - at:X} +")
        path = self.folder / "bad.map"
        path.write_text("\n".join(lines) + "\n")
        return path

    def test_an_unreadable_table_is_a_finding(self):
        path = self.sound(Recipe())
        with Qcow2(path) as image:
            tables = [entry & ~(1 << 63) for entry in image.l1() if entry]
        bad = self.write_map([(tables[1], 512)], path.stat().st_size)
        before = folder_state(self.folder)
        code, document = check_json(path, "--bad-map", bad)
        self.assertEqual(code, 4)
        found = [f for f in document["findings"] if f["code"] == "image-unreadable"]
        self.assertEqual([f["host-offset"] // 4096 for f in found], [tables[1] // 4096])
        self.assertIn("guest-offset", found[0])
        self.assertGreater(document["check-errors"], 0)
        self.assertEqual(folder_state(self.folder), before)
        # Everything else was walked: nothing is taken for lost.
        self.assertNotIn("qcow2-l1-entry-past-eof", codes(document))
        done = run(BIN / "imgdump", "--bad-map", bad, path)
        self.assertEqual(done.code, 0, done.err)

    def test_unreadable_everywhere(self):
        """Each cluster in turn: a finding when metadata lies there, and then no repair takes what
        could not be read for nothing."""
        for recipe in (Recipe("snapshots"), Recipe("bitmaps"), Recipe("luks")):
            path = self.sound(recipe)
            size = path.stat().st_size
            with Qcow2(path) as image:
                claims = Claims(image).by_cluster
            # QEMU leaves most of the key slots of a LUKS header empty: nothing looks at them.
            first_luks = min((c for c, owners in claims.items() if owners[0].kind == "luks"),
                             default=0)
            clusters = [c for c in range(size // 4096) if c <= first_luks or
                        claims[c] and claims[c][0].kind not in ("luks",)]
            for cluster in sample(clusters, 10, 5):
                kinds = {claim.kind for claim in claims[cluster]}
                with self.subTest(content=recipe.content, cluster=cluster, kinds=kinds):
                    self.check_unreadable(path, cluster, bool(kinds - {"data", "bitmap-data"}))

    def check_unreadable(self, path, cluster, metadata):
        bad = self.write_map([(cluster * 4096, 4096)], path.stat().st_size)
        before = folder_state(self.folder)
        code, document = check_json(path, "--format", "qcow2", "--bad-map", bad)
        self.assertIn(code, (0, 4))
        if metadata:
            self.assertEqual(code, 4)
            self.assertIn("image-unreadable", codes(document))
        repair = imgfsck("--format", "qcow2", "--bad-map", bad, "--repair=all", path)
        self.assertEqual(repair.code, code, repair.out + repair.err)
        if metadata:
            self.assertIn("cannot be read", repair.out)
        self.assertEqual(folder_state(self.folder), before)

    def test_a_map_that_is_none(self):
        path = self.sound(Recipe())
        (self.folder / "no.map").write_text("this is no map\n")
        done = imgfsck("--bad-map", self.folder / "no.map", path)
        self.assertEqual(done.code, 8)
        self.assertIn("no.map", done.err)
        self.assertEqual(imgfsck("--bad-map", self.folder / "missing.map", path).code, 8)


class FullDisk(ImageTest):
    def nothing_happened(self, folder, before):
        state = folder_state(folder)
        self.assertEqual({n: s.digest for n, s in state.items()},
                         {n: s.digest for n, s in before.items()})

    def filled(self, disk, path):
        """Puts the image on the small disk, and fills what is left but for a page."""
        copy(path, disk / path.name)
        left = os.statvfs(disk).f_bavail * 4096 - 4096
        (disk / "filler").write_bytes(b"x" * max(left, 0))
        return disk / path.name

    def test_no_room_for_the_undo_record(self):
        path, _ = self.damaged(DAMAGE)
        disk = self.folder / "disk"
        with small_disk(disk, 4 * MB) as there:
            if not there:
                raise unittest.SkipTest("nothing may be mounted here")
            image = self.filled(disk, path)
            before = folder_state(disk)
            done = imgfsck("--repair", image)
            self.assertEqual(done.code, 8, done.out + done.err)
            self.assertRegex(done.err, "free|space")
            self.nothing_happened(disk, before)
            # With the record elsewhere it goes.
            (disk / "filler").unlink()
            (disk / "filler").write_bytes(b"x" * (os.statvfs(disk).f_bavail * 4096 - 65536))
            done = imgfsck("--repair", "--undo", self.folder / "undo", image)
            self.assertIn(done.code, (1, 8), done.err)

    def test_no_room_for_the_copy(self):
        path, _ = self.damaged(DAMAGE)
        disk = self.folder / "disk"
        before = digest(path)
        with small_disk(disk, 64 * 1024) as there:
            if not there:
                raise unittest.SkipTest("nothing may be mounted here")
            done = imgfsck("--repair", "--output", disk / "out.qcow2", path)
            self.assertEqual(done.code, 8, done.out + done.err)
            self.assertRegex(done.err, "free|space")
            self.assertEqual(list(disk.iterdir()), [])
        self.assertEqual(digest(path), before)

    def test_files_may_not_grow(self):
        """A limit on the length of files: the same as a full disk, at every length."""
        for length in (0, 1, 4096, 8192, 12288, 16384, 40960, 65536, 131072, 139264, 143360):
            with self.subTest(limit=length):
                path, _ = self.damaged("l2-data-crosslink")
                before = folder_state(self.folder)
                done = run("prlimit", f"--fsize={length}", BIN / "imgfsck", "--repair", path)
                self.assertIn(done.code, (1, 4, 8), done.out + done.err)
                if done.code == 8:
                    self.assertTrue(done.err.strip())
                    self.nothing_happened(self.folder, before)
                else:
                    self.assertEqual(imgfsck("--rollback", f"{path}.imgfsck-undo", path).code, 0)
                    self.assertEqual(digest(path), before[path.name].digest)

    def test_output_that_cannot_be_written(self):
        path, _ = self.damaged(DAMAGE)
        with open("/dev/full", "w", encoding="ascii") as full:
            for words in ([], ["--json"], ["--list-problems"]):
                done = subprocess.run([BIN / "imgfsck", *words, path], stdout=full, timeout=60,
                                      stderr=subprocess.PIPE, check=False)
                self.assertEqual(done.returncode, 8, words)
            for words in ([], ["--json"], ["--sql"], ["--map"], ["--query", "SELECT 1"]):
                done = subprocess.run([BIN / "imgdump", *words, path], stdout=full, timeout=60,
                                      stderr=subprocess.PIPE, check=False)
                self.assertEqual(done.returncode, 8, words)
                self.assertTrue(done.stderr.strip())


class LittleMemory(ImageTest):
    on_disk = False

    def limited(self, megabytes, path):
        done = run("prlimit", f"--as={megabytes * MB}", BIN / "imgfsck", "--json", "--threads", "1",
                   path)
        return None if done.code == 127 or "shared librar" in done.err else done

    @unittest.skipIf(SANITIZED, "the sanitizers reserve all the address space there is")
    def test_every_amount_of_it(self):
        """From too little to run at all to enough: 8 with a sentence, or the answer."""
        path, _ = self.damaged(DAMAGE)
        large = self.folder / "large.qcow2"
        qemu_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=512,preallocation=metadata",
                 large, "192M")
        before = folder_state(self.folder)
        good = imgfsck("--json", "--threads", "1", path)
        for megabytes in range(10, 400):
            done = self.limited(megabytes, path)
            if done is None:
                continue  # the program could not even be loaded
            self.assertIn(done.code, (4, 8), (megabytes, done.err))
            self.assertEqual(folder_state(self.folder), before)
            if done.code == 4:
                break
            self.assertIn("memory", done.err)
        self.assertEqual(done.out, good.out)
        # What is enough for a small image is not for this one.
        done = self.limited(megabytes, large)
        self.assertEqual(done.code, 8, done.out)
        self.assertIn("memory", done.err)
        self.assertEqual(self.limited(megabytes + 200, large).code, 0)
        self.assertEqual(folder_state(self.folder), before)


class Signals(ImageTest):
    def start(self, *command):
        return subprocess.Popen(slowed(*command), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                env={**os.environ, **TRACED}, start_new_session=True)

    def child_of(self, process, number):
        """The traced program's process id, once it catches that signal."""
        for _ in range(2000):
            time.sleep(0.01)
            done = run("pgrep", "-P", process.pid)
            if done.code != 0:
                continue
            child = int(done.out.split()[0])
            with contextlib.suppress(OSError), open(f"/proc/{child}/status", encoding="ascii") as lines:
                caught = next(line for line in lines if line.startswith("SigCgt"))
                if int(caught.split()[1], 16) >> number - 1 & 1:
                    return child
        self.fail("nothing was started")

    def stopped(self, number, *command):
        process = self.start(*command)
        try:
            os.kill(self.child_of(process, number), number)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
        return process.returncode, out.decode(), err.decode()

    def test_a_check_stops(self):
        path = self.sound(Recipe("snapshots"))
        before = folder_state(self.folder)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            code, out, err = self.stopped(number, BIN / "imgfsck", path)
            self.assertEqual(code, 32, (number, out, err))
            self.assertIn("stopped", err)
            self.assertEqual(out, "")
            self.assertEqual(folder_state(self.folder), before)
        self.assertEqual(self.stopped(signal.SIGINT, BIN / "imgdump", "--sql", path)[0], 32)

    def test_a_repair_stops_before_it_writes(self):
        path, _ = self.damaged(DAMAGE)
        before = folder_state(self.folder)
        code, _, err = self.stopped(signal.SIGINT, BIN / "imgfsck", "--repair", path)
        self.assertEqual(code, 32, err)
        self.assertEqual(folder_state(self.folder), before)


class Meanwhile(ImageTest):
    def test_an_image_that_changes_under_a_check(self):
        path = self.sound(Recipe())
        with subprocess.Popen(slowed(BIN / "imgfsck", path), stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, env={**os.environ, **TRACED}) as process:
            while process.poll() is None:
                os.utime(path)
                time.sleep(0.02)
            out, err = process.communicate(timeout=60)
        self.assertIn("(image-changed-during-check)", out.decode(), err)


class Progress(ImageTest):
    def test_shown_when_asked_for(self):
        path = self.sound(Recipe("snapshots"))
        done = run(*slowed(BIN / "imgfsck", "--progress", path, microseconds=200000), env=TRACED)
        self.assertEqual(done.code, 0, done.err)
        self.assertRegex(done.err, r"imgfsck: .*disk\.qcow2: \w.* \d+%\n")
        self.assertNotIn("%", done.out)

    def test_silent_in_a_file(self):
        path = self.sound(Recipe("snapshots"))
        done = run(*slowed(BIN / "imgfsck", path, microseconds=200000), env=TRACED)
        self.assertEqual((done.code, done.err), (0, ""))

    def test_shown_on_a_terminal(self):
        path = self.sound(Recipe("snapshots"))
        master, terminal = pty.openpty()
        with subprocess.Popen(slowed(BIN / "imgfsck", path, microseconds=200000),
                              env={**os.environ, **TRACED}, stdout=subprocess.PIPE,
                              stderr=terminal) as process:
            os.close(terminal)
            shown = b""
            with contextlib.suppress(OSError):  # the end of a terminal is an error
                while data := os.read(master, 4096):
                    shown += data
            out, _ = process.communicate(timeout=60)
        os.close(master)
        self.assertEqual(process.returncode, 0)
        self.assertRegex(shown.decode(), r"\rimgfsck: .* \d+%")
        self.assertTrue(shown.endswith(b"\r\x1b[K"), "the line is not cleared in the end")
        self.assertNotIn(b"\x1b", out)

    def test_colour_on_a_terminal_only(self):
        path, _ = self.damaged(DAMAGE)
        for environment, coloured in ({}, True), ({"NO_COLOR": "1"}, False):
            master, terminal = pty.openpty()
            process = subprocess.run([BIN / "imgfsck", path], stdout=terminal, timeout=60,
                                     env={**os.environ, **environment}, check=False)
            os.close(terminal)
            shown = b""
            with contextlib.suppress(OSError):
                while data := os.read(master, 4096):
                    shown += data
            os.close(master)
            self.assertEqual(process.returncode, 4)
            self.assertEqual(b"\x1b[" in shown, coloured)


if __name__ == "__main__":
    main()
