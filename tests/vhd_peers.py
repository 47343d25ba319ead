#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""VHDs and the programs of others: QEMU and we read what the other wrote, libvhdi reads our
footers, images by Virtual PC and Hyper-V are clean and stay so, the faults of QEMU's driver of 2012
are found and mended, and imgdump explains it all."""
import bz2
import json
import os
import pathlib
import random
import sqlite3

from imglib.programs import BIN, check_json, folder_state, imgdump, imgfsck, qemu_io, run
from imglib.testing import RANK, ImageTest, codes, main, summary
from imglib.vhd import SATURATED, SECTOR, Vhd, Writer, geometry, random_disk

KB, MB, GB = 1 << 10, 1 << 20, 1 << 30
SAMPLES = pathlib.Path(__file__).parent / "fixtures" / "vhd"


class PeerTest(ImageTest):
    on_disk = False

    def assert_clean(self, path, *options):
        before = folder_state(self.folder)
        code, document = check_json(path, "--format", "vpc", *options)
        self.assertEqual(code, 0, summary(document))
        self.assertFalse([f for f in document["findings"] if RANK[f["severity"]] > RANK["info"]],
                         summary(document))
        self.assertEqual(folder_state(self.folder), before, "a check wrote something")
        return document

    def io(self, path, *commands):
        return qemu_io(path, commands, ("-f", "vpc", path))

    def raw(self, path):
        """What QEMU's guest reads."""
        target = self._root / "raw"
        run("qemu-img", "convert", "-f", "vpc", "-O", "raw", path, target, check=True)
        data = target.read_bytes()
        target.unlink()
        return data

    def ours(self, path, size):
        target = self._root / "ours"
        run(BIN / "imgio", "read", path, "0", size, "--to", target, check=True)
        data = target.read_bytes()
        target.unlink()
        return data


class WithQemu(PeerTest):
    def test_both_ways(self):
        for subformat in ("fixed", "dynamic"):
            for force in ("on", "off"):
                for maker in ("imgio", "qemu-img"):
                    with self.subTest(subformat=subformat, force_size=force, maker=maker):
                        self.fresh_folder()
                        self.both_ways(self.folder / "disk.vhd", subformat, force, maker)

    def both_ways(self, path, subformat, force, maker):
        program = [BIN / "imgio", "create"] if maker == "imgio" else ["qemu-img", "create", "-q"]
        run(*program, "-f", "vpc", "-o", f"subformat={subformat},force_size={force}", path, "11M",
            check=True)
        size = json.loads(run("qemu-img", "info", "-f", "vpc", "--output=json", path,
                              check=True).out)["virtual-size"]
        if force == "on":
            self.assertEqual(size, 11 * MB)
        self.assertEqual(self.assert_clean(path)["virtual-size"], size)
        run(BIN / "imgio", "write", path, 3 * MB - 700, "--pattern", "7", "--length", 2 * MB,
            check=True)
        self.io(path, f"read -P 7 {3 * MB - 700} {2 * MB}", f"read -P 0 0 {3 * MB - 700}",
                f"write -P 9 {4 * MB} 70000", f"write -P 10 {size - 512} 512", "write -P 11 0 1")
        expected = bytearray(size)
        expected[3 * MB - 700:5 * MB - 700] = b"\7" * (2 * MB)
        expected[4 * MB:4 * MB + 70000] = b"\x09" * 70000
        expected[size - 512:] = b"\x0a" * 512
        expected[0] = 11
        self.assertTrue(self.ours(path, size) == expected, "we read something else")
        self.assertTrue(self.raw(path) == expected, "QEMU reads something else")
        run(BIN / "imgio", "write", path, 10 * MB, "--pattern", "12", "--length", "9", check=True)
        self.io(path, f"read -P 12 {10 * MB} 9", f"read -P 9 {4 * MB} 70000")
        run("vhdiinfo", path, check=True)
        self.assert_clean(path, "--deep")

    def test_libvhdi_reads_repaired_footers(self):
        path = self.folder / "disk.vhd"
        sound = random_disk(random.Random("libvhdi"), "win", 8 * MB, 512 * KB)
        hurt = Vhd(sound.data)
        hurt.data[hurt.end:] = b"\xc7" * SECTOR
        path.write_bytes(hurt.data)
        self.assertNotEqual(run("vhdiinfo", path).code, 0)
        self.assertEqual(check_json(path, "--repair")[0], 0)  # killed with a copy is a warning
        self.assertIn("Dynamic", run("vhdiinfo", path, check=True).out)


class Samples(PeerTest):
    def unpack(self, name):
        path = self.folder / "sample.vhd"
        path.write_bytes(bz2.decompress((SAMPLES / f"{name}.vhd.bz2").read_bytes()))
        return path

    def test_clean_before_and_after_a_write(self):
        names = sorted(file.name.removesuffix(".vhd.bz2") for file in SAMPLES.glob("*.vhd.bz2"))
        self.assertGreaterEqual(len(names), 2)
        for name in names:
            with self.subTest(sample=name):
                path = self.unpack(name)
                self.assert_clean(path)
                self.assert_clean(path, "--deep")
                self.assertEqual(imgfsck("--repair=all", path).code, 0)
                run(BIN / "imgio", "write", path, 5 * GB + 1000, "--pattern", "5", "--length",
                    3 * MB, check=True)
                self.assert_clean(path, "--deep")
                self.io(path, f"read -P 5 {5 * GB + 1000} 3M", f"read -P 0 {4 * GB} 1G",
                        f"read -P 0 {5 * GB + 1000 + 3 * MB} 100M")

    def test_what_qemu_does_to_them_is_found(self):
        """QEMU's first block begins below the old footer, which then is guest data (sheet, 9)."""
        for name, sector in (("virtualpc-dynamic", 0), ("hyperv2012r2-dynamic", 7)):
            with self.subTest(sample=name):
                path = self.unpack(name)
                self.io(path, "write -P 3 1M 512")
                _, document = check_json(path, "--deep")
                found = [f for f in document["findings"]
                         if f["code"] == "vhd-bitmap-stale-footer"]
                self.assertEqual([f["guest-offset"] for f in found], [sector * SECTOR],
                                 summary(document))
                code, _ = check_json(path, "--deep", "--repair", "--fix", "vhd-bitmap-stale-footer")
                self.assertEqual(code, 0)
                self.io(path, "read -P 0 0 1M", "read -P 3 1M 512")


class SeedDefects(PeerTest):
    """What the vpc driver of 2012 left behind."""

    def test_footer_with_checksum_zero(self):
        path = self.folder / "grown.vhd"
        run("qemu-img", "create", "-q", "-f", "vpc", path, "20M", check=True)
        self.io(path, "write -P 1 0 3M", "write -P 2 15M 512")
        content = self.raw(path)
        v = Vhd(path.read_bytes())
        v.set_footer("end", seal=False, checksum=0)
        path.write_bytes(v.data)
        _, document = check_json(path)
        self.assertIn("vhd-footer-checksum-zero", codes(document))
        self.assertEqual(check_json(path, "--repair")[0], 1)
        self.assertTrue(Vhd(path.read_bytes()).footer.sound())
        self.assertEqual(path.read_bytes()[:v.end], bytes(v.data[:v.end]))
        self.assertTrue(self.raw(path) == content)
        self.assert_clean(path, "--deep")

    def test_largest_geometry(self):
        """It made such disks and then refused to open them; the size is right, and we open them."""
        path = self.folder / "large.vhd"
        size = 200 * GB
        v = Writer("qemu", size, 2 * MB, 3).sparse({}, [])
        self.assertEqual((v.footer.cylinders, v.footer.heads, v.footer.sectors), SATURATED)
        v.set_footer(current_size=size, original_size=size)
        v.set_header(entries=size // (2 * MB) + 1)  # one to spare, as it counted
        end = 1536 + (size // (2 * MB) + 1) * 4
        end += -end % SECTOR
        table = b"\xff" * (end - 1536)
        v.data[1536:] = table + v.data[v.end:]
        path.write_bytes(v.data)
        self.assertEqual(self.assert_clean(path)["virtual-size"], size)
        run(BIN / "imgio", "write", path, size - 9, "--pattern", "1", "--length", "9", check=True)
        self.io(path, f"read -P 1 {size - 9} 9")
        self.assert_clean(path)

    def test_footer_that_the_guest_can_write(self):
        """The file as long as asked for, the geometry rounded up: the last sectors of the guest lie
        over the footer and behind the end of the file."""
        path = self.folder / "fixed.vhd"
        v = Writer("qem2", 10 * MB, 2 * MB, 4).fixed(random.Random(4).randbytes(10 * MB))
        cylinders, heads, sectors = geometry(20536)
        v.set_footer(creator=b"qemu", cylinders=cylinders, heads=heads, sectors=sectors)
        path.write_bytes(v.data)
        self.assertEqual(len(v.data), 10 * MB + SECTOR)
        seen = self.raw(path)
        self.assertEqual(len(seen), 20536 * SECTOR)
        _, document = check_json(path, "--format", "vpc")
        self.assertIn("vhd-geometry-exceeds-size", codes(document))
        self.assertEqual(check_json(path, "--format", "vpc", "--repair")[0], 1)
        self.assertTrue(self.raw(path) == seen)
        self.assertEqual(os.path.getsize(path), 20536 * SECTOR + SECTOR)
        self.assert_clean(path)
        self.io(path, f"write -P 1 {20480 * SECTOR} 512", f"write -P 2 {20535 * SECTOR} 512")
        self.assert_clean(path)
        self.io(path, f"read -P 1 {20480 * SECTOR} 512")

    def test_a_write_through_the_guest_is_kept_off_the_footer(self):
        path = self.folder / "fixed.vhd"
        v = Writer("qem2", 10 * MB, 2 * MB, 4).fixed(b"")
        cylinders, heads, sectors = geometry(20536)
        v.set_footer(creator=b"qemu", cylinders=cylinders, heads=heads, sectors=sectors)
        path.write_bytes(v.data)
        run(BIN / "imgio", "write", "--format", "vpc", path, 10 * MB, "--pattern", "9", "--length",
            "512")
        self.assertTrue(Vhd(path.read_bytes()).footer.sound(), "the footer was written over")

    def test_a_leading_copy_that_is_lost(self):
        """It took such a disk for a fixed one on opening, for a dynamic one on reading."""
        path = self.folder / "disk.vhd"
        v = random_disk(random.Random("copy"), "qemu", 4 * MB, 512 * KB)
        content = v.read("spec")
        v.data[:SECTOR] = bytes(SECTOR)
        path.write_bytes(v.data)
        self.assertEqual(self.ours(path, len(content)), content)
        self.assertEqual(check_json(path, "--repair")[0], 1)
        self.assertTrue(self.raw(path)[:len(content)] == content)

    def test_two_entries_that_share_a_block(self):
        """Its allocator went back with the end of the file, but not with the entry."""
        path = self.folder / "disk.vhd"
        v = random_disk(random.Random("share"), "qemu", 8 * MB, 512 * KB, 0.4)
        used = v.stored()[0]
        free = next(i for i in range(v.header.entries) if i not in v.stored())
        v.set_entry(free, v.entry(used))
        path.write_bytes(v.data)
        seen = self.raw(path)
        code, document = check_json(path, "--repair")
        self.assertIn("vhd-bat-entry-duplicate", codes(document))
        self.assertEqual(code, 1)
        self.assertTrue(self.raw(path) == seen)
        after = Vhd(path.read_bytes())
        self.assertNotEqual(after.entry(free), after.entry(used))


class Children(PeerTest):
    """Made and written by our driver: of a VHD, and of a raw disk, which no id can be recorded of."""

    def test_made_written_grown(self):
        content = random.Random("base").randbytes(4 * MB)
        for kind in ("vpc", "raw"):
            with self.subTest(parent=kind):
                self.fresh_folder()
                raw, base = self.folder / "base.raw", self.folder / "base.img"
                raw.write_bytes(content)
                run(BIN / "imgio", "convert", "-f", "raw", "-O", kind,
                    *(["-o", "force_size=on"] if kind == "vpc" else []), raw, base, check=True)
                self.family(base, self.folder / "child.vhd", kind, bytearray(content))

    def family(self, base, child, kind, expected):
        below = base.read_bytes()
        run(BIN / "imgio", "create", "-f", "vpc", "-o", f"backing_file={base.name},backing_fmt="
            + kind, child, check=True)
        header = Vhd(child.read_bytes()).header
        wanted = Vhd(below).footer.uuid if kind == "vpc" else bytes(16)
        self.assertEqual(header.parent_id, wanted)
        self.assertEqual(header.parent_time, int(base.stat().st_mtime) - 946684800)
        self.assertEqual(self.ours(child, 4 * MB), expected)
        for words in (("write", MB + 300, "--pattern", "7", "--length", "1000"),
                      ("zero", 2 * MB + 100, "5000")):
            run(BIN / "imgio", words[0], child, *words[1:], check=True)
        expected[MB + 300:MB + 1300] = b"\7" * 1000
        expected[2 * MB + 100:2 * MB + 5100] = bytes(5000)
        self.assertTrue(self.ours(child, 4 * MB) == expected)
        run(BIN / "imgio", "resize", child, "6M", check=True)
        expected += bytes(2 * MB)
        self.assertTrue(self.ours(child, 6 * MB) == expected)
        run(BIN / "imgio", "discard", child, 3 * MB, MB, check=True)
        after = self.ours(child, 6 * MB)
        self.assertTrue(after[:3 * MB] == expected[:3 * MB])
        self.assertTrue(after[4 * MB:] == expected[4 * MB:])
        self.assertIn(after[3 * MB:4 * MB], (expected[3 * MB:4 * MB], bytes(MB)))
        self.assert_clean(child, "--chain", "--deep")
        self.assertEqual(base.read_bytes(), below, "the parent was written to")

    def test_a_child_without_a_parent_is_not_made(self):
        for backing in ("none.vhd,backing_fmt=vpc", "disk.qcow2,backing_fmt=qcow2"):
            run("qemu-img", "create", "-q", "-f", "qcow2", self.folder / "disk.qcow2", "1M")
            done = run(BIN / "imgio", "create", "-f", "vpc", "-o", f"backing_file={backing}",
                       self.folder / "child.vhd", "1M")
            self.assertIn(done.code, (8, 16))
            self.assertFalse((self.folder / "child.vhd").exists())


class Dump(PeerTest):
    def test_a_child_is_explained(self):
        chance = random.Random("dump")
        path = self.folder / "child.vhd"
        parent = ("b\u00e4se.vhd", b"\1" * 16, 500000000)
        v = random_disk(chance, "win", 3 * MB, 512 * KB, 0.5, parent)
        path.write_bytes(v.data)
        out = imgdump(path, check=True).out
        for text in ("differencing", "2015-11-05T00:53:20Z", "'win ': Hyper-V", "6.3",
                     "W2ru (UTF-16LE)", "W2ku (UTF-16LE)", "MacX (UTF-8)", "b\u00e4se.vhd",
                     "footer-copy", "footer\n", "header", "max_table_entries", "sectors are",
                     "01010101-0101"):
            self.assertIn(text, out)
        document = json.loads(imgdump("--json", path, check=True).out)
        names = {field["name"] for field in document["fields"]}
        self.assertLessEqual({"current_size", "table_offset", "locator[0].platform_code"}, names)
        for name in ("footer", "footer-copy", "header", "bat", "locator",
                     f"block-bitmap[{v.stored()[0]}]"):
            self.assertRegex(imgdump("--hex", name, path, check=True).out, r"\n[0-9a-f]{8}  ")

    def test_tables_and_map_agree_with_the_bitmaps(self):
        path = self.folder / "disk.vhd"
        v = random_disk(random.Random("map"), "win", 3 * MB, 512 * KB, 0.6)
        path.write_bytes(v.data)
        done = imgdump("--sql", path, check=True)
        base = sqlite3.connect(":memory:")
        base.executescript(done.out)
        content = bytearray(v.footer.current_size)
        rows = base.execute("select guest_offset, length, host_offset from mapping "
                            "where state = 'data'").fetchall()
        for guest, length, host in rows:
            content[guest:guest + length] = v.data[host:host + length]
        self.assertTrue(bytes(content) == v.read("spec"))
        kinds = {kind for kind, in base.execute("select distinct kind from region")}
        self.assertLessEqual({"footer", "footer-copy", "dynamic-header", "bat", "block-bitmap",
                              "data"}, kinds)
        self.assertEqual(base.execute("select count(*) from region where kind = 'block-bitmap'")
                         .fetchone()[0], len(v.stored()))
        for table, in base.execute("select name from sqlite_master").fetchall():
            base.execute(f"select * from {table}").fetchall()
        mapped = bytearray(v.footer.current_size)
        for run_ in json.loads(imgdump("--map", "--json", path, check=True).out):
            if run_["data"]:
                at, start, length = run_["offset"], run_["start"], run_["length"]
                mapped[start:start + length] = v.data[at:at + length]
        self.assertTrue(mapped == content)


if __name__ == "__main__":
    main()
