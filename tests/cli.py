#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The command line as scripts rely on it: exit statuses, the many ways to write --repair, options
that do not go together, copies, plans, orphans, undo records, and texts that are one in all places."""
import json
import os
import pathlib
import sqlite3

from imglib.make import Recipe
from imglib.programs import BIN, check_json, digest, folder_state, imgdump, imgfsck, qemu_img, run
from imglib.testing import ImageTest, main

DAMAGE = "refcount-block-zeroed-16"  # mended by a safe repair
LEAK = "leak-zero-16"
DOCS = pathlib.Path(__file__).resolve().parent.parent / "docs"


class CommandLine(ImageTest):
    def usage_error(self, *arguments, words=()):
        before = folder_state(self.folder)
        done = imgfsck(*arguments)
        self.assertEqual(done.code, 16, f"{arguments}: {done.out}{done.err}")
        self.assertEqual(done.out, "")
        for word in words:
            self.assertIn(word, done.err)
        self.assertEqual(folder_state(self.folder), before)

    def test_statuses_of_a_check(self):
        path = self.sound(Recipe())
        self.assertEqual(imgfsck(path).code, 0)
        bad, _ = self.damaged(DAMAGE)
        self.assertEqual(imgfsck(bad).code, 4)
        self.assertEqual(imgfsck("--exit-zero", bad).code, 0)
        self.assertEqual(imgfsck("--exit-zero", self.folder / "missing").code, 8)
        leak, _ = self.damaged(LEAK)
        self.assertEqual(imgfsck(leak).code, 4)
        self.assertEqual(imgfsck("--fail-on", "corruption", leak).code, 0)

    def test_statuses_in_qemus_style(self):
        path = self.sound(Recipe())
        self.assertEqual(imgfsck("--exit-style=qemu", path).code, 0)
        bad, _ = self.damaged(DAMAGE)
        self.assertEqual(imgfsck("--exit-style", "qemu", bad).code, 2)
        leak, _ = self.damaged(LEAK)
        self.assertEqual(imgfsck("--exit-style", "qemu", leak).code, 3)
        self.assertEqual(imgfsck("--exit-style", "qemu", self.folder / "missing").code, 1)
        (self.folder / "text").write_text("no image\n" * 1000)
        self.assertEqual(imgfsck("--exit-style", "qemu", self.folder / "text").code, 63)
        # Of several images the gravest counts.
        leak.rename(self.folder / "leak.qcow2")
        bad, _ = self.damaged(DAMAGE, fresh=False)
        for order in ([bad, self.folder / "leak.qcow2"], [self.folder / "leak.qcow2", bad]):
            self.assertEqual(imgfsck("--exit-style", "qemu", *order).code, 2)
        self.assertEqual(imgfsck("--exit-style", "qemu", "missing", bad).code, 1)

    def test_several_images(self):
        bad, _ = self.damaged(DAMAGE)
        good = self.sound(Recipe(), name="good.qcow2")
        self.assertEqual(imgfsck(good, bad).code, 4)
        self.assertEqual(imgfsck(good, bad, self.folder / "missing").code, 12)
        done = imgfsck("--json", good, bad)
        documents = [json.loads(line) for line in done.out.splitlines()]
        self.assertEqual([d["filename"] for d in documents], [str(good), str(bad)])
        self.assertEqual([d["exit-code"] for d in documents], [0, 4])
        for option in ("--output", "--undo", "--rollback", "--plan", "--apply", "--lost-map"):
            self.usage_error("-r" if option not in ("--rollback", "--apply") else "--json",
                             option, self.folder / "x", good, bad)

    def test_ways_to_write_repair(self):
        for words in (["-r"], ["--repair"], ["-rsafe"], ["-r=safe"], ["--repair=safe"], ["-rall"],
                      ["--repair=all"], ["-qr"], ["--repair", "--"], ["-r", "-q", "--"]):
            with self.subTest(words=words):
                path, _ = self.damaged(DAMAGE)
                self.assertEqual(imgfsck(*words, path).code, 1)
                self.assertEqual(imgfsck(path).code, 0)

    def test_what_is_no_way_to_write_repair(self):
        path, _ = self.damaged(DAMAGE)
        for mode in ("all", "safe", "leaks"):
            for spelling in ("-r", "--repair"):
                self.usage_error(spelling, mode, path, words=(f"--repair={mode}",))
        self.usage_error("--repair=most", path, words=("most",))
        self.usage_error("--repair=", path)
        # After -- it is a file, whatever its name.
        done = imgfsck("-r", "--", "all", cwd=self.folder)
        self.assertEqual(done.code, 8)

    def test_a_file_named_like_an_option(self):
        path = self.sound(Recipe(), name="disk.qcow2")
        path.rename(self.folder / "--json")
        self.assertEqual(imgfsck("--", "--json", cwd=self.folder).code, 0)

    def test_misuse(self):
        path, _ = self.damaged(DAMAGE)
        self.usage_error()
        self.usage_error("--no-such-option", path)
        self.usage_error("--format", "vmware", path, words=("vmware",))
        self.usage_error("--fail-on", "everything", path)
        self.usage_error("--exit-style", "bsd", path)
        self.usage_error("--explain", "no-such-code")
        self.usage_error("-r", "--fix", "no-such-code", path)
        self.usage_error("--dry-run", path)
        self.usage_error("--output", self.folder / "x", path)
        self.usage_error("--no-undo", path)
        self.usage_error("--threads", "many", path)
        self.usage_error("-r", "--max-copy", "much", path)
        self.usage_error("-r", "--recover", path)
        self.usage_error("-r", "--rollback", self.folder / "x", path)
        self.usage_error("-r", "--undo", self.folder / "x", "--no-undo", path)
        self.usage_error("-r", "--plan", self.folder / "x", "--output", self.folder / "y", path)
        self.usage_error("-r", "--orphans", "dir:", path)
        self.usage_error("--report", self.folder / "x", "--format", "qcow2", path)

    def test_a_map_alone_takes_the_chain(self):
        path = self.sound(Recipe())
        for words in (["--chain"], ["--chain", "--json"], ["--chain", "--sql"]):
            done = imgdump(*words, path)
            self.assertEqual((done.code, done.out), (16, ""))
            self.assertIn("--chain goes with --map", done.err)

    def test_options_of_other_formats_say_so(self):
        path = self.sound(Recipe())
        for words in (["--profile", "azure"], ["--size-policy=chs"],
                      ["-r", "--relink", path]):
            self.usage_error(*words, path, words=("not available for qcow2 images",))
        self.usage_error("--profile", "amazon", path, words=("azure",))
        other = self.folder / "disk.vhd"
        qemu_img("create", "-q", "-f", "vpc", other, "20M")
        self.usage_error("-r", "--orphans", "snapshot", other, words=("dir:PATH",))
        for words in (["--profile", "azure"], ["--size-policy=chs"]):
            self.assertIn(imgfsck(*words, other).code, (0, 4), words)

    def test_raw_only_when_named(self):
        path = self.folder / "disk"
        path.write_bytes(b"hello" * 1000)
        done = imgfsck(path)
        self.assertEqual(done.code, 8)
        self.assertIn("not recognised", done.err)
        self.assertEqual(imgfsck("--format", "raw", path).code, 0)
        code, document = check_json(path, "--format=raw")
        self.assertEqual((code, document["format"]), (0, "raw"))

    def test_dry_run_writes_nothing(self):
        for words in (["-r", "-n"], ["--repair=all", "--dry-run"]):
            path, _ = self.damaged(DAMAGE)
            before = folder_state(self.folder)
            self.assertEqual(imgfsck(*words, path).code, 4)
            self.assertEqual(folder_state(self.folder), before)
        path = self.sound(Recipe(), name="good.qcow2")
        self.assertEqual(imgfsck("-r", "-n", path).code, 0)

    def test_repair_keeps_an_undo_record(self):
        path, _ = self.damaged(DAMAGE)
        old = digest(path)
        self.assertEqual(imgfsck("-r", path).code, 1)
        record = pathlib.Path(f"{path}.imgfsck-undo")
        self.assertTrue(record.exists())
        # One that has nothing to do writes nothing.
        before = folder_state(self.folder)
        self.assertEqual(imgfsck("-r", path).code, 0)
        self.assertEqual(folder_state(self.folder), before)
        self.assertEqual(imgfsck("--rollback", record, path).code, 0)
        self.assertEqual(digest(path), old)
        self.assertEqual(imgfsck("--rollback", record, path).code, 0)  # nothing to do
        # The next repair has a record of its own.
        self.assertEqual(imgfsck("-r", path).code, 1)
        self.assertTrue(pathlib.Path(f"{record}.2").exists())
        with open(path, "r+b") as file:
            file.seek(0, os.SEEK_END)
            file.write(b"x")
        self.assertEqual(imgfsck("--rollback", f"{record}.2", path).code, 8)

    def test_undo_elsewhere_and_none(self):
        path, _ = self.damaged(DAMAGE)
        (self.folder / "records").mkdir()
        record = self.folder / "records" / "undo"
        self.assertEqual(imgfsck("-r", "--undo", record, path).code, 1)
        self.assertTrue(record.exists())
        self.assertEqual(sorted(p.name for p in self.folder.iterdir()), [path.name, "records"])
        path, _ = self.damaged(DAMAGE)
        self.assertEqual(imgfsck("-r", "--no-undo", path).code, 1)
        self.assertEqual([p.name for p in self.folder.iterdir()], [path.name])
        # An existing record is never overwritten.
        path, _ = self.damaged(DAMAGE)
        taken = self.folder / "taken"
        taken.write_text("precious")
        old = digest(path)
        self.assertEqual(imgfsck("-r", "--undo", taken, path).code, 8)
        self.assertEqual((digest(path), taken.read_text()), (old, "precious"))

    def test_output(self):
        path, _ = self.damaged(DAMAGE)
        before = folder_state(self.folder)
        copy = self.folder / "copy.qcow2"
        done = imgfsck("-r", "--output", copy, path)
        self.assertEqual(done.code, 1, done.out + done.err)
        after = folder_state(self.folder)
        self.assertEqual(after.pop(copy.name).size, before[path.name].size)
        self.assertEqual(after, before)
        self.assertEqual(imgfsck(copy).code, 0)
        self.assertEqual(imgfsck("-r", path).code, 1)
        self.assertEqual(digest(copy), digest(path))
        self.assertEqual(imgfsck("-r", "--output", copy, path).code, 8)  # exists

    def test_plan_and_apply(self):
        path, _ = self.damaged(DAMAGE)
        before = folder_state(self.folder)
        plan = self.folder / "plan.json"
        self.assertEqual(imgfsck("-r", "--plan", plan, path).code, 4)
        document = json.loads(plan.read_text())
        self.assertTrue(document["findings"] and document["patches"] and document["passes"])
        after = folder_state(self.folder)
        del after[plan.name]
        self.assertEqual(after, before)
        done = imgfsck("--apply", plan, path)
        self.assertEqual(done.code, 1, done.out + done.err)
        self.assertEqual(imgfsck(path).code, 0)
        self.assertEqual(imgfsck("--apply", plan, path).code, 8)  # not the same bytes any more
        self.assertEqual(imgfsck("--rollback", f"{path}.imgfsck-undo", path).code, 0)
        self.assertEqual(digest(path), before[path.name].digest)
        plan.write_text(plan.read_text().replace('"changes": ', '"changes": 1', 1))
        self.assertEqual(imgfsck("--apply", plan, path).code, 8)
        self.assertEqual(digest(path), before[path.name].digest)

    def test_orphans_as_files(self):
        path, _ = self.damaged("leak-content")
        places = self.folder / "orphans"
        done = imgfsck("-r", "--orphans", f"dir:{places}", path)
        self.assertIn(done.code, (1, 4), done.out + done.err)
        lines = (places / "INDEX.tsv").read_text().splitlines()
        self.assertGreater(len(lines), 1)
        for line in lines[1:]:
            name, _, length = line.split("\t")[:3]
            self.assertEqual((places / name).stat().st_size, int(length))
        old = folder_state(self.folder)
        self.assertEqual(imgfsck("-r", "--orphans", f"dir:{places}", path).code, 8)
        self.assertEqual(folder_state(self.folder), old)

    def test_database(self):
        path, _ = self.damaged(DAMAGE)
        good = self.sound(Recipe(), name="good.qcow2")
        file = self.folder / "model.db"
        self.assertEqual(imgfsck("--db", file, path, good).code, 4)
        with sqlite3.connect(file) as db:
            self.assertEqual(db.execute("select image_id, path from image order by 1").fetchall(),
                             [(1, str(path)), (2, str(good))])
            self.assertGreater(db.execute("select count(*) from finding").fetchone()[0], 0)
        self.assertEqual(imgfsck("--db", file, path).code & 8, 8)  # an existing one is refused

    def test_catalogue_and_version(self):
        listed = imgfsck("--list-problems")
        self.assertEqual(listed.code, 0)
        self.assertGreater(len(listed.out.splitlines()), 200)
        told = imgfsck("--explain", "qcow2-refcount-leak")
        self.assertEqual(told.code, 0)
        self.assertIn("qcow2-refcount-leak", told.out)
        for tool in (imgfsck, imgdump):
            self.assertRegex(tool("--version").out, r"^img\w+ \d+\.\d+\.\d+\n$")
            self.assertEqual(tool("--help").code, 0)

    def test_no_colour_and_no_progress_in_files(self):
        path, _ = self.damaged(DAMAGE)
        done = imgfsck(path)
        self.assertNotIn("\x1b", done.out + done.err)
        self.assertEqual(done.err, "")

    def test_pages_of_options_are_up_to_date(self):
        for tool in ("imgfsck", "imgdump", "imgio", "imgtriage"):
            page = DOCS / f"cli-{tool}.md"
            made = run(BIN / tool, "--help-markdown")
            self.assertEqual(made.code, 0)
            if os.environ.get("IMGFSCK_RENEW_DOCS"):
                page.write_text(made.out)
            self.assertEqual(page.read_text(), made.out,
                             f"{page} is out of date: run this test with IMGFSCK_RENEW_DOCS=1")


if __name__ == "__main__":
    main()
