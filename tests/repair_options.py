#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The ways to write a repair (in place, elsewhere, as a plan) and to take it back; from one damaged
image they all agree to the byte."""
from imglib.programs import copy, digest, imgfsck, qemu_check
from imglib.qcow2 import Qcow2
from imglib.testing import ImageTest, main


class RepairOptions(ImageTest):
    """The ways to write a repair, all from one damaged image; they must agree to the byte."""
    DAMAGE = "refcount-block-zeroed-16"

    def setUp(self):
        super().setUp()
        self.path, _ = self.damaged(self.DAMAGE)
        self.old = digest(self.path)
        self.undo = self.folder / "disk.qcow2.imgfsck-undo"
        copy(self.path, self.folder / "copy.qcow2")
        done = imgfsck("--repair", "--no-undo", self.folder / "copy.qcow2")
        self.assertEqual(done.code, 1, done.out + done.err)
        self.new = digest(self.folder / "copy.qcow2")
        self.assertNotEqual(self.new, self.old)
        (self.folder / "copy.qcow2").unlink()

    def output(self):
        """Repairs to another file and returns that."""
        out = self.folder / "out.qcow2"
        done = imgfsck("--repair", "--output", out, self.path)
        self.assertEqual(done.code, 1, done.out + done.err)
        return out

    def names(self):
        return {file.name for file in self.folder.iterdir()}

    def test_output_leaves_the_image_alone(self):
        out = self.output()
        self.assertEqual(digest(self.path), self.old)
        self.assertEqual(digest(out), self.new)
        self.assertEqual(self.names(), {"disk.qcow2", "out.qcow2"})
        self.assertEqual(qemu_check(out)[0], 0)

    def test_output_is_not_overwritten(self):
        out = self.output()
        self.assertEqual(imgfsck("--repair", "--output", out, self.path).code, 8)
        self.assertEqual(digest(out), self.new)

    def test_in_place_is_the_same(self):
        self.assertEqual(imgfsck("--repair", self.path).code, 1)
        self.assertEqual(digest(self.path), self.new)

    def test_undo_file_where_asked(self):
        undo = self.folder / "elsewhere.undo"
        self.assertEqual(imgfsck("--repair", "--undo", undo, self.path).code, 1)
        self.assertEqual(self.names(), {"disk.qcow2", "elsewhere.undo"})
        self.assertEqual(imgfsck("--rollback", undo, self.path).code, 0)
        self.assertEqual(digest(self.path), self.old)

    def test_undo_file_is_not_overwritten(self):
        undo = self.folder / "elsewhere.undo"
        undo.write_text("mine")
        self.assertEqual(imgfsck("--repair", "--undo", undo, self.path).code, 8)
        self.assertEqual(undo.read_text(), "mine")
        self.assertEqual(digest(self.path), self.old)

    def test_no_undo_leaves_nothing_behind(self):
        self.assertEqual(imgfsck("--repair", "--no-undo", self.path).code, 1)
        self.assertEqual(digest(self.path), self.new)
        self.assertEqual(self.names(), {"disk.qcow2"})

    def test_rollback_is_refused_after_a_change(self):
        self.assertEqual(imgfsck("--repair", self.path).code, 1)
        with open(self.path, "r+b") as file:
            file.truncate(file.seek(0, 2) + 4096)
        changed = digest(self.path)
        done = imgfsck("--rollback", self.undo, self.path)
        self.assertEqual(done.code, 8)
        self.assertTrue(done.err.strip())
        self.assertEqual(digest(self.path), changed)

    def test_second_repair_has_a_record_of_its_own(self):
        self.assertEqual(imgfsck("--repair", self.path).code, 1)
        with open(self.path, "r+b") as file:
            file.seek(107)
            file.write(b"\1")  # the header's padding: a warning with a safe repair
        self.assertEqual(imgfsck("--repair", self.path).code, 0)
        self.assertIn("disk.qcow2.imgfsck-undo.2", self.names())
        self.assertEqual(digest(self.path), self.new)

    def test_plan_and_apply(self):
        plan = self.folder / "plan.json"
        self.assertEqual(imgfsck("--repair", "--plan", plan, self.path).code, 4)
        self.assertEqual(digest(self.path), self.old)
        self.assertEqual(self.names(), {"disk.qcow2", "plan.json"})
        self.assertEqual(imgfsck("--apply", plan, self.path).code, 1)
        self.assertEqual(digest(self.path), self.new)
        self.assertEqual(imgfsck("--rollback", self.undo, self.path).code, 0)
        self.assertEqual(digest(self.path), self.old)

    def test_plan_is_refused_when_the_image_changed(self):
        plan = self.folder / "plan.json"
        self.assertEqual(imgfsck("--repair", "--plan", plan, self.path).code, 4)
        with Qcow2(self.path) as image:
            block = next(entry for entry in image.refcount_table() if entry)
        with open(self.path, "r+b") as file:
            file.seek(block)
            file.write(b"\0\7")
        changed = digest(self.path)
        done = imgfsck("--apply", plan, self.path)
        self.assertEqual(done.code, 8, done.out)
        self.assertTrue(done.err.strip())
        self.assertEqual(digest(self.path), changed)

    def test_recover_with_nothing_to_do(self):
        self.assertEqual(imgfsck("--recover", self.path).code, 0)
        self.assertEqual(digest(self.path), self.old)


if __name__ == "__main__":
    main()
