#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Temporary files where TMPDIR is hostile: a link, missing, a file, full, not writable, everybody's,
with a name that a terminal would obey. A program that needs one works, or says what is wrong with a
status of 8; the file is nobody else's, and nothing is left."""
import contextlib
import os
import re
import shutil
import struct

from imglib.programs import BIN, SANITIZED, digest, folder_state, imgfsck, qemu_img, qemu_io, run
from imglib.testing import ImageTest, main

MB = 1024 * 1024
COPIED = 1 << 63
ODD_NAME = "new\nline \x1b[31mred"
# What a system call that makes a name must say, as strace shows it.
PRIVATE = re.compile(r"O_TMPFILE.*0[46]00\)|O_CREAT\b.*O_EXCL\b.*0[46]00\)|mkdir(at)?\(.*0700\)")


@contextlib.contextmanager
def mounted(folder, options):
    """A file system in memory there; False where nothing may be mounted."""
    folder.mkdir()
    done = run("mount", "-t", "tmpfs", "-o", options, "imgfsck-test", folder)
    try:
        yield done.code == 0
    finally:
        if done.code == 0:
            run("umount", folder, check=True)


class TempFiles(ImageTest):
    on_disk = False

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.wide = cls._root / "wide.qcow2"
        cls.claimed_often(cls.wide, 34)

    @staticmethod
    def claimed_often(path, clusters):
        """Every entry of a table names one cluster of 2 MiB: its repair copies more than is held in
        memory."""
        qemu_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=2M", path, clusters * 2 * MB)
        qemu_io(path, ["write -q -P 7 0 2M"])
        with open(path, "r+b") as file:
            file.seek(40)
            table, = struct.unpack(">Q", file.read(8))
            file.seek(table)
            l2 = struct.unpack(">Q", file.read(8))[0] & ~COPIED
            file.seek(l2)
            entry = file.read(8)
            file.seek(l2)
            file.write(entry * clusters)

    def places(self, stack):
        """(name, what TMPDIR says, can files be made there?, the folder that must stay empty)"""
        home = self._root / "places"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        good = home / "good"
        good.mkdir()
        link = home / "link"
        link.symlink_to(good)
        loose = home / "loose"
        loose.mkdir()
        loose.chmod(0o777)
        odd = home / ODD_NAME
        odd.mkdir()
        dangling = home / "dangling"
        dangling.symlink_to(home / "nowhere")
        (home / "file").write_bytes(b"I am a file")
        yield "good", good, True, good
        yield "link", link, True, good
        yield "everybody's", loose, True, loose
        yield "odd name", odd, True, odd
        yield "missing", home / "missing", False, None
        yield "missing, odd name", home / (ODD_NAME + "?"), False, None
        yield "dangling link", dangling, False, None
        yield "file", home / "file", False, None
        yield "no place for files", "/proc", False, None
        yield "too long", "/" + "x" * 5000, False, None
        for name, options in (("full", "size=8k"), ("read-only", "ro")):
            folder = home / name
            if stack.enter_context(mounted(folder, options)):
                yield name, folder, False, folder

    def watched(self, place, *command):
        """Runs it; every name that was made below `place` was made private."""
        if SANITIZED:
            return run(*command, env={"TMPDIR": str(place)})
        log = self._root / "calls"
        done = run("strace", "-f", "-qq", "--seccomp-bpf", "-y", "-s", "6000", "-o", log, "-e",
                   "trace=open,openat,creat,mkdir,mkdirat", *command, env={"TMPDIR": str(place)})
        quoted = str(place).replace("\n", "\\n").replace("\x1b", "\\33")
        made = [line for line in log.read_text(errors="replace").splitlines()
                if f'"{quoted}' in line and ("O_CREAT" in line or "mkdir" in line or
                                             "O_TMPFILE" in line)]
        for line in made:
            private_parent = f'"{quoted}/imgtriage-' in line  # 0700: what is in it is nobody's
            self.assertTrue(private_parent or PRIVATE.search(line), line)
        self.made = len(made)
        return done

    def every_place(self, needed, *command, outputs=(), good=(0,)):
        """`needed`: a place that is no good is an error, not only a detour."""
        with contextlib.ExitStack() as stack:
            for name, place, usable, empty in self.places(stack):
                with self.subTest(place=name, command=command[0].name):
                    for output in outputs:
                        output.unlink(missing_ok=True)
                    before = folder_state(self.folder)
                    done = self.watched(place, *command)
                    self.assertNotIn("\x1b", done.err)
                    if usable or not needed:
                        self.assertIn(done.code, good, (name, done.err))
                    else:
                        self.assertEqual(done.code, 8, (name, done.out, done.err))
                        self.assertRegex(done.err, "temporary (file|folder) in|disk is full")
                        # What was asked for and could be had, imgtriage keeps.
                        there = [o.name for o in outputs if name == "full" and o.exists()]
                        after = {n: s for n, s in folder_state(self.folder).items()
                                 if n not in there}
                        self.assertEqual(after, before, name)
                    if usable and needed and not SANITIZED:
                        self.assertGreater(self.made, 0, name)
                    if empty is not None:
                        self.assertEqual(os.listdir(empty), [], name)

    def test_repair_of_more_than_memory_holds(self):
        path, out = self.folder / "wide.qcow2", self.folder / "out.qcow2"
        shutil.copy(self.wide, path)
        self.every_place(True, BIN / "imgfsck", "--repair", "--output", out, path, good=(1,),
                         outputs=(out,))
        self.assertEqual(digest(path), digest(self.wide))

    def test_repair_in_place(self):
        path = self.folder / "wide.qcow2"
        shutil.copy(self.wide, path)
        for place in (self.folder / "missing", self.folder / "wide.qcow2"):
            before = folder_state(self.folder)
            done = imgfsck("--repair", path, env={"TMPDIR": str(place)})
            self.assertEqual(done.code, 8, done.err)
            self.assertIn("temporary file in", done.err)
            self.assertEqual(folder_state(self.folder), before)
        folder = self.folder / ODD_NAME
        folder.mkdir()
        self.assertEqual(self.watched(folder, BIN / "imgfsck", "--repair", path).code, 1)
        undo = self.folder / "wide.qcow2.imgfsck-undo"
        self.assertEqual(undo.stat().st_mode & 0o077, 0, "the record holds what the disk held")
        done = self.watched(folder, BIN / "imgfsck", "--rollback", undo, path)
        self.assertEqual(done.code, 0, done.err)
        self.assertEqual(digest(path), digest(self.wide))
        self.assertEqual(os.listdir(folder), [])

    def test_triage_into_a_database(self):
        path = self.folder / "small.qcow2"
        qemu_img("create", "-q", "-f", "qcow2", path, "1M")
        out = self.folder / "out.db"
        self.every_place(True, BIN / "imgtriage", "--db", out, path, outputs=(out,), good=(0, 4))

    def test_databases_and_sorting_go_elsewhere(self):
        """SQLite looks for another place by itself; where there is none, it says so."""
        path = self.folder / "many.qcow2"
        qemu_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=512,preallocation=metadata", path,
                 "12M")
        out = self.folder / "out.db"
        self.every_place(False, BIN / "imgdump", "--db", out, path, outputs=(out,))
        self.every_place(False, BIN / "imgfsck", "--db", out, path, outputs=(out,))
        self.every_place(False, BIN / "imgdump", "--query",
                         "SELECT count(*) FROM (SELECT DISTINCT guest_offset, printf('%200d', "
                         "host_offset) FROM mapping ORDER BY 2 DESC)", path)


if __name__ == "__main__":
    main()
