#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The programs put the system call filter on before they look at an image: nothing is opened after
it, no answer differs from one without it, and where filters are refused the work goes on and a
message says so."""
import re

from imglib.make import Recipe
from imglib.programs import BIN, SANITIZED, digest, imgfsck, run
from imglib.testing import ImageTest, main

CALLS = "trace=seccomp,prctl,open,openat,creat,socket,execve,fork,vfork,clone"
# The leak checker cannot run under a tracer.
TRACED = {"ASAN_OPTIONS": "detect_leaks=0"}
DAMAGE = "refcount-block-zeroed-16"
FILTER = r"SECCOMP_SET_MODE_FILTER, \w+, (?!NULL).*= 0$"  # a filter is put on


class Sandbox(ImageTest):
    def traced(self, *words, inject=()):
        trace = self.folder / "trace"
        done = run("strace", "-f", "-qq", "-o", trace, "-e", CALLS, *inject, BIN / words[0],
                   *words[1:], env=TRACED)
        return done, trace.read_text()

    def test_nothing_is_opened_behind_the_filter(self):
        if SANITIZED:
            return  # a build with sanitizers has no filter, and its tests say so
        path, _ = self.damaged(DAMAGE)
        for words in (("imgfsck", path), ("imgfsck", "--json", path), ("imgfsck", "--deep", path),
                      ("imgfsck", "--threads", "4", path), ("imgdump", path),
                      ("imgdump", "--json", path), ("imgdump", "--map", path),
                      ("imgdump", "--hex", "header", path)):
            with self.subTest(words=words[:-1]):
                done, trace = self.traced(*words)
                self.assertIn(done.code, (0, 4), done.err)
                before, _, after = re.split(f"(^.*{FILTER})", trace, maxsplit=1,
                                            flags=re.MULTILINE)
                self.assertIn(path.name, before)
                self.assertEqual([line for line in after.splitlines()
                                  if line and not re.search(r"CLONE_THREAD|prctl|resumed>", line)], [])

    def test_each_of_several_images_has_its_own(self):
        paths = [self.damaged(name)[0] for name in (DAMAGE, "leak-zero-16")]
        both = imgfsck(*paths)
        self.assertEqual(both.code, 4)
        self.assertEqual(both.out, "\n".join(imgfsck(path).out for path in paths))
        missing = imgfsck(self.folder / "missing", paths[0])
        self.assertEqual(missing.code, 12)
        self.assertIn(imgfsck(paths[0]).out, missing.out)
        if not SANITIZED:
            _, trace = self.traced("imgfsck", *paths)
            self.assertEqual(len(re.findall(FILTER, trace, re.MULTILINE)), 2, trace)

    def test_same_answers_without(self):
        path, _ = self.damaged(DAMAGE)
        for words in ((), ("--json",), ("--deep",), ("--repair", "--dry-run"),
                      ("--repair", "--dry-run", "--json")):
            inside = imgfsck(*words, path)
            outside = imgfsck("--no-sandbox", *words, path)
            self.assertEqual((inside.code, inside.out, inside.err),
                             (outside.code, outside.out, outside.err), words)

    def test_going_on_where_filters_are_refused(self):
        for error in ("EINVAL", "EPERM", "ENOSYS"):
            path, _ = self.damaged(DAMAGE)
            refuse = ("-e", f"inject=seccomp:error={error}")
            check, _ = self.traced("imgfsck", path, inject=refuse)
            self.assertEqual((check.code, check.out), (4, imgfsck(path).out))
            quiet, _ = self.traced("imgfsck", "--no-sandbox", path, inject=refuse)
            self.assertEqual((quiet.code, quiet.err), (4, ""))
            repair, _ = self.traced("imgfsck", "--repair", path, inject=refuse)
            self.assertEqual(repair.code, 1, repair.err)
            for done in () if SANITIZED else (check, repair):
                self.assertEqual(done.err.count("going on without it"), 1, done.err)
            self.assertEqual(imgfsck(path).code, 0)

    def test_repairs_write_what_was_named(self):
        path, _ = self.damaged(DAMAGE)
        old = digest(path)
        records = self.folder / "records"
        records.mkdir()
        undo, plan, copy = records / "undo", records / "plan", records / "copy"
        database, lost = records / "db", records / "lost"
        self.assertEqual(imgfsck("--repair", "--output", copy, path).code, 1)
        self.assertEqual(imgfsck(copy).code, 0)
        self.assertEqual(imgfsck("--repair", "--plan", plan, path).code, 4)
        self.assertEqual(digest(path), old)
        done = imgfsck("--apply", plan, "--undo", undo, "--db", database, "--lost-map", lost, path)
        self.assertEqual(done.code, 1, done.err)
        for made in (undo, database, lost):
            self.assertTrue(made.exists(), made)
        self.assertEqual(digest(path), digest(copy))
        self.assertEqual(imgfsck("--rollback", undo, path).code, 0)
        self.assertEqual(digest(path), old)
        done = imgfsck("--repair=all", "--orphans", f"dir:{records / 'orphans'}", path)
        self.assertEqual(done.code, 1, done.err)

    def test_imgio_works_inside(self):
        path = self.sound(Recipe())
        if not SANITIZED:
            done, trace = self.traced("imgio", "info", path)
            self.assertEqual(done.code, 0, done.err)
            self.assertRegex(trace, re.compile(FILTER, re.MULTILINE))
        outside = run(BIN / "imgio", "map", "--no-sandbox", path)
        self.assertEqual(run(BIN / "imgio", "map", path).out, outside.out)

    def test_every_worker_of_imgtriage_has_its_own(self):
        store = self.folder.parent / "store"
        store.mkdir()
        for name in (DAMAGE, "leak-zero-16"):
            self.damaged(name)[0].rename(store / name)
        inside, trace = self.traced("imgtriage", store)
        outside = run(BIN / "imgtriage", "--no-sandbox", store)
        self.assertEqual((inside.code, inside.out, inside.err),
                         (outside.code, outside.out, outside.err))
        if SANITIZED:
            return
        workers = set()
        for worker in re.findall(r"^(\d+) .*SECCOMP_SET_MODE_FILTER, \w+, (?!NULL)",
                                 trace, re.MULTILINE):
            workers.add(worker)
            opened = [line for line in trace.splitlines()
                      if line.startswith(worker) and str(store) in line]
            self.assertTrue(opened, trace)
            self.assertTrue(all("O_RDONLY" in line for line in opened), opened)
        self.assertEqual(len(workers), 2, trace)
        refused, _ = self.traced("imgtriage", store, inject=("-e", "inject=seccomp:error=EINVAL"))
        self.assertEqual((refused.code, refused.out), (outside.code, outside.out))
        self.assertEqual(refused.err.count("going on without it"), 1, refused.err)


if __name__ == "__main__":
    main()
