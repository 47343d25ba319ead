#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""VHDs that stand on others: what --chain finds of parents that are gone, wrong, smaller, newer, in a
circle or damaged; what --relink does and what it refuses; split images; --profile azure."""
import os
import random
import shutil

from imglib.programs import BIN, check_json, folder_state, imgfsck, run
from imglib.testing import ImageTest, codes, main, summary
from imglib.vhd import SECTOR, Vhd, Writer, random_disk

KB, MB = 1024, 1024 * 1024
BLOCK = 64 * KB
SIZE = 10 * BLOCK
EPOCH = 946684800


def disk(program="qem2", size=SIZE, parent=None, seed=1):
    return random_disk(random.Random(f"chain {program} {seed}"), program, size, BLOCK, 0.6, parent)


class ChainTest(ImageTest):
    on_disk = False

    def put(self, name, v):
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(v.data)
        return path

    def family(self, **child):
        """A parent, and a child that names it; returns both and the child's path."""
        base = disk(**{key: child.pop(key) for key in ("size",) if key in child})
        path = self.put("base.vhd", base)
        time = int(os.stat(path).st_mtime) - EPOCH
        top = disk("win", child.get("own_size", SIZE), ("base.vhd", base.footer.uuid, time), 2)
        return base, top, self.put("top.vhd", top)

    def check(self, path, *options):
        before = folder_state(self.folder)
        code, document = check_json(path, *options)
        self.assertEqual(folder_state(self.folder), before, "a check wrote something")
        return code, document

    def read(self, path, size):
        out = run(BIN / "imgio", "read", path, "0", size, "--to", self._root / "read")
        self.assertEqual(out.code, 0, out.err)
        data = (self._root / "read").read_bytes()
        (self._root / "read").unlink()
        return data


class Parents(ChainTest):
    def severities(self, path, code):
        _, document = self.check(path, "--chain")
        return [f["severity"] for f in document["findings"] if f["code"] == code]

    def test_a_sound_chain_is_clean_and_reads_through(self):
        base, top, path = self.family()
        code, document = self.check(path, "--chain", "--deep")
        self.assertEqual(code, 0, summary(document))
        self.assertFalse({c for c in codes(document) if c.startswith("vhd-parent")})
        self.assertEqual(self.read(path, SIZE), top.read("spec", base.read()))

    def test_a_missing_parent(self):
        _, _, path = self.family()
        (self.folder / "base.vhd").unlink()
        self.assertEqual(self.severities(path, "vhd-parent-unresolved"), ["corruption"])
        _, document = self.check(path)
        found = [f["severity"] for f in document["findings"]
                 if f["code"] == "vhd-parent-unresolved"]
        self.assertEqual(found, ["warning"], "without --chain it is a warning")

    def test_another_disk_under_the_name(self):
        _, _, path = self.family()
        self.put("base.vhd", disk(seed=9))
        self.assertEqual(self.severities(path, "vhd-parent-uuid-mismatch"), ["corruption"])

    def test_no_vhd_under_the_name(self):
        _, _, path = self.family()
        (self.folder / "base.vhd").write_bytes(bytes(SIZE))
        self.assertEqual(self.severities(path, "vhd-parent-uuid-mismatch"), ["corruption"])

    def test_a_parent_that_is_not_as_old_as_recorded(self):
        _, _, path = self.family()
        base = self.folder / "base.vhd"
        recorded = int(os.stat(base).st_mtime)
        os.utime(base, (recorded + 100, recorded + 100))
        self.assertEqual(self.severities(path, "vhd-parent-newer-than-child"), ["warning"])
        os.utime(base, (recorded - 100, recorded - 100))
        _, document = self.check(path, "--chain")
        self.assertIn("vhd-parent-timestamp", [t["code"] for t in document["totals"]])

    def test_a_parent_that_is_larger(self):
        base, top, path = self.family(size=SIZE + 3 * BLOCK)
        self.assertEqual(self.severities(path, "vhd-parent-size"), ["corruption"])
        code, document = check_json(path, "--chain", "--repair=all")
        self.assertEqual(code, 1, summary(document))
        self.assertEqual(self.severities(path, "vhd-parent-size"), [])
        whole = base.read()
        self.assertEqual(self.read(path, SIZE), top.read("spec", whole))
        self.assertEqual(self.read(path, len(whole))[SIZE:], whole[SIZE:])

    def test_a_circle(self):
        first, second = b"1" * 16, b"2" * 16
        one = disk("win", SIZE, ("two.vhd", second, 0), 3)
        two = disk("win", SIZE, ("one.vhd", first, 0), 4)
        one.set_footer(uuid=first)
        two.set_footer(uuid=second)
        self.put("two.vhd", two)
        path = self.put("one.vhd", one)
        self.assertEqual(self.severities(path, "vhd-parent-chain-cycle"), ["corruption"])
        self.assertEqual(run(BIN / "imgio", "read", path, "0", "512", timeout=20).code, 8)
        self.assertEqual(run(BIN / "imgdump", path, timeout=20).code, 0)

    def test_a_chain_that_is_too_long(self):
        base = disk()
        base.set_footer(uuid=(1).to_bytes(16, "big"))
        self.put("0.vhd", base)
        for i in range(1, 70):
            link = (f"{i - 1}.vhd", i.to_bytes(16, "big"), 0)
            child = Writer("win", SIZE, BLOCK, 1, link).sparse({}, [])
            child.set_footer(uuid=(i + 1).to_bytes(16, "big"))
            path = self.put(f"{i}.vhd", child)
        self.assertEqual(self.severities(path, "vhd-parent-chain-cycle"), ["corruption"])

    def test_a_damaged_parent_and_a_damaged_grandparent(self):
        base, _, path = self.family()
        hurt = Vhd(base.data)
        hurt.set_entry(hurt.stored()[0], hurt.entry(hurt.stored()[1]))
        self.put("base.vhd", hurt)
        self.assertEqual(self.severities(path, "vhd-parent-bad"), ["corruption"])
        before = (self.folder / "base.vhd").read_bytes()
        check_json(path, "--chain", "--repair=all")
        self.assertEqual((self.folder / "base.vhd").read_bytes(), before, "parents are not ours")

    def test_names_that_lead_out_are_not_followed(self):
        for name in ("//server/share/base.vhd", "/dev/zero", "/proc/self/mem"):
            with self.subTest(name=name):
                self.fresh_folder()
                top = disk("win", SIZE, (name, b"3" * 16, 0), 5)
                code, _ = self.check(self.put("top.vhd", top), "--chain", "--deep")
                self.assertEqual(code, 4)


class Relink(ChainTest):
    def relink(self, path, parent, *options):
        return check_json(path, "--repair", "--relink", parent, *options)

    def test_a_parent_that_moved(self):
        base, top, path = self.family()
        expected = top.read("spec", base.read())
        moved = self.folder / "elsewhere" / "p\u00e4rent %20.vhd"
        moved.parent.mkdir()
        shutil.move(self.folder / "base.vhd", moved)
        code, document = self.relink(path, moved)
        self.assertIn(code, (0, 1), summary(document))
        self.assertEqual(self.read(path, SIZE), expected)
        header = Vhd(path.read_bytes()).header
        self.assertTrue(header.sound())
        self.assertEqual(header.parent_id, base.footer.uuid)
        self.assertEqual(header.parent_name.decode("utf-16-be").rstrip("\0"), moved.name)
        code, document = self.check(path, "--chain")
        self.assertEqual(code, 0, summary(document))
        undo = path.with_name("top.vhd.imgfsck-undo")
        self.assertEqual(imgfsck("--rollback", undo, path).code, 0)
        self.assertEqual(path.read_bytes(), bytes(top.data))

    def test_a_wrong_parent_is_refused(self):
        _, top, path = self.family()
        other = self.put("other.vhd", disk(seed=9))
        _, document = self.relink(path, other)
        self.assertEqual(path.read_bytes(), bytes(top.data))
        self.assertTrue(document["repair"]["refused"])

    def test_another_id_is_recorded_on_explicit_request_only(self):
        _, top, path = self.family()
        other = disk(seed=9)
        code, document = self.relink(path, self.put("base.vhd", other), "--fix",
                                     "vhd-parent-uuid-mismatch", "--chain")
        self.assertIn(code, (0, 1), summary(document))
        self.assertEqual(Vhd(path.read_bytes()).header.parent_id, other.footer.uuid)
        self.assertEqual(self.read(path, SIZE), top.read("spec", other.read()))


class SplitAndAzure(ChainTest):
    def test_a_split_image_is_recognised_and_left_alone(self):
        whole = Writer("vpc", 2 * MB, BLOCK, 3).fixed(random.Random(1).randbytes(MB))
        half = len(whole.data) // 2 // SECTOR * SECTOR
        first = self.put("disk.vhd", Vhd(whole.data[:half]))
        self.put("disk.v01", Vhd(whole.data[half:]))
        done = imgfsck("--format", "vpc", first)
        self.assertEqual(done.code, 4)
        self.assertIn("split image", done.out)
        before = folder_state(self.folder)
        for mode in ("safe", "all"):
            self.assertEqual(imgfsck("--format", "vpc", f"--repair={mode}", first).code, 4)
            self.assertEqual(folder_state(self.folder), before)

    def azure(self, v, *options):
        path = self.put("azure.vhd", v)
        return (path, *check_json(path, "--profile", "azure", *options))

    def fixed(self, size, program="win"):
        return Writer(program, size, BLOCK, 8).fixed(random.Random(2).randbytes(10000))

    def test_azure_takes_a_whole_mebibyte(self):
        _, code, document = self.azure(self.fixed(4 * MB))
        self.assertEqual(code, 0, summary(document))
        self.assertFalse({c for c in codes(document) if "azure" in c})

    def test_azure_wants_a_whole_mebibyte(self):
        sound = self.fixed(4 * MB + 3 * SECTOR)
        path, _, document = self.azure(sound)
        self.assertIn("vhd-azure-size", codes(document))
        path, code, document = self.azure(sound, "--repair")
        self.assertIn(code, (0, 1), summary(document))
        mended = Vhd(path.read_bytes())
        self.assertEqual(mended.footer.current_size, 5 * MB)
        self.assertEqual(len(mended.data), 5 * MB + SECTOR)
        self.assertEqual(bytes(mended.data[:len(sound.data) - SECTOR]),
                         bytes(sound.data[:-SECTOR]))
        self.assertFalse(any(mended.data[len(sound.data) - SECTOR:5 * MB]))
        self.assertTrue(mended.footer.sound())

    def test_azure_wants_fixed_disks(self):
        _, _, document = self.azure(disk("win", 4 * MB))
        self.assertIn("vhd-azure-not-fixed", codes(document))

    def test_azure_wants_size_and_geometry_to_agree(self):
        path, _, document = self.azure(self.fixed(4 * MB, "vpc"))
        size = Vhd(path.read_bytes()).footer.current_size
        self.assertTrue(codes(document) & {"vhd-azure-size", "vhd-azure-geometry"})
        path, code, document = self.azure(Vhd(path.read_bytes()), "--repair")
        self.assertIn(code, (0, 1), summary(document))
        footer = Vhd(path.read_bytes()).footer
        self.assertEqual(footer.current_size % MB, 0)
        self.assertGreaterEqual(footer.current_size, size)
        self.assertFalse({c for c in codes(check_json(path, "--profile", "azure")[1])
                          if "azure" in c})


if __name__ == "__main__":
    main()
