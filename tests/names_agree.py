#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The guest's files that imgfsck --names and imgtriage --names give for every block of a disk,
against what debugfs says of ext file systems and The Sleuth Kit's programs of NTFS, FAT and exFAT;
partition tables; and what The Sleuth Kit's library is known to get wrong."""
import json
import random
import re
import struct

from imglib.guests import (CLUSTER, Exfat, concern, debugfs, ext, fill, lose, lose_block,
                           partitioned, set_entry)
from imglib.programs import BIN, run
from imglib.testing import ImageTest, main

FILES = {"alpha": 200_000, "etc/passwd": 3000, "etc/deep/beta": 1_000_000, "empty": 0,
         "caf\u00e9": 70_000, "one": 1, "big": 5_000_000}


class Agree(ImageTest):
    def names(self, image, *options):
        """The answers of both programs, which must be one."""
        done = run(BIN / "imgtriage", "--names", "--json", "-", *options, image)
        self.assertEqual(done.code, 4, done.err)
        triage = json.loads(done.out)["names"]
        done = run(BIN / "imgfsck", "--names", "--json", image)
        self.assertEqual(done.code, 4, done.err)
        document = json.loads(done.out)
        fsck = document["names"]["active"]
        self.assertEqual(fsck["volumes"], triage["volumes"])
        of_findings = sorted((hit["guest-offset"], hit["kind"], hit.get("path", ""))
                             for finding in document["findings"] for hit in finding["names"])
        if of_findings and len(triage["list"]) < 1000:
            self.assertLessEqual(len(triage["list"]), len(of_findings))
        return triage

    def owners(self, names, block, base=0):
        """{block: {(kind, path, file offset)}}"""
        owners = {}
        for hit in names["list"]:
            begin = hit["guest-offset"] - base
            for at in range(begin // block, -(-(begin + hit["guest-length"]) // block)):
                offset = hit.get("file-offset")
                if offset is not None:
                    offset += at * block - begin
                owners.setdefault(at, set()).add((hit["kind"], hit.get("path"), offset))
        return owners

    # --- ext

    def icheck(self, raw, blocks):
        """{block: inode} of the blocks that belong to one."""
        found = {}
        for at in range(0, len(blocks), 500):
            out = debugfs(raw, "icheck " + " ".join(map(str, blocks[at:at + 500])))
            for line in out.splitlines():
                match = re.fullmatch(r"(\d+)\t(\d+)", line)
                if match:
                    found[int(match[1])] = int(match[2])
        return found

    def ncheck(self, raw, inodes):
        found = {}
        for line in debugfs(raw, "ncheck " + " ".join(map(str, sorted(inodes)))).splitlines():
            match = re.fullmatch(r"(\d+)\t(.*)", line)
            if match:
                found.setdefault(int(match[1]), set()).add(match[2].replace("//", "/"))
        return found

    def agree_on_ext(self, kind, block, options=(), commands=(), fragments=False, cluster=CLUSTER,
                     size="32M"):
        raw, image, tree = (self.folder / name for name in ("raw", "image", "tree"))
        fill(tree, FILES)
        ext(raw, size, kind, tree, ("-b", block, *options))
        if fragments:
            commands = [*commands, *self.make_fragments(raw)]
        if commands:
            debugfs(raw, *commands)
        concern(raw, image, cluster)
        names = self.names(image, "--max-findings", 10000)
        self.assertTrue(names["volumes"][0]["mapped"])
        self.assertNotIn("more", names)
        self.assertEqual(names["faulted"], [])
        owners = self.owners(names, block)
        count = raw.stat().st_size // block
        inodes = self.icheck(raw, range(count))
        paths = self.ncheck(raw, {inode for inode in inodes.values() if inode > 10})
        self.assertGreater(len(inodes), 500)
        free, uninitialised = self.free_blocks(raw)
        wrong = []
        for at in range(count):
            mine = {path for _, path, _ in owners.get(at, ()) if path}
            theirs = paths.get(inodes.get(at), set())
            if theirs and not mine & theirs:
                wrong.append((at, mine, theirs))
            if not theirs and mine - {"/lost+found", "/"} and inodes.get(at, 0) > 10:
                wrong.append((at, mine, "nobody"))
            kinds = {kind for kind, _, _ in owners.get(at, ())}
            if at in free and kinds != {"unallocated"}:
                wrong.append((at, owners.get(at), "free"))
            # The library takes groups without a bitmap for free, with the tables in them.
            if at not in free and "unallocated" in kinds and at not in uninitialised:
                wrong.append((at, owners.get(at), "in use"))
        self.assertEqual(wrong[:5], [])
        return owners, inodes, paths

    def free_blocks(self, raw):
        """Those, and all of groups whose bitmap does not exist."""
        out = run("dumpe2fs", raw).out
        free, uninitialised = set(), set()
        for group in re.findall(r"\(Blocks (\d+)-(\d+)\).*BLOCK_UNINIT", out):
            uninitialised.update(range(int(group[0]), int(group[1]) + 1))
        for line in re.findall(r"^  Free blocks: (.*)$", out, re.M):
            for piece in filter(None, line.split(", ")):
                first, _, last = piece.partition("-")
                free.update(range(int(first), int(last or first) + 1))
        return free, uninitialised

    def make_fragments(self, raw):
        """Commands after which a new file lies in more pieces than its inode has room for."""
        pieces = self.folder / "pieces"
        rand = random.Random(9)
        small = [self.folder / f"small{i}" for i in range(40)]
        for path in small:
            path.write_bytes(rand.randbytes(3 * 4096))
        debugfs(raw, *(f"write {path} {path.name}" for path in small))
        debugfs(raw, *(f"rm {path.name}" for path in small[::2]))
        pieces.write_bytes(rand.randbytes(60 * 4096))
        return [f"write {pieces} pieces"]

    def test_ext4_and_its_extent_blocks(self):
        owners, inodes, paths = self.agree_on_ext("ext4", 4096, fragments=True)
        inode = next(i for i, names in paths.items() if "/pieces" in names)
        tree = [at for at, who in owners.items() if ("metadata", "/pieces", None) in who]
        # The library gives the run of an extent block a length in bytes; no more than the block
        # itself is the file's.
        self.assertTrue(tree)
        self.assertTrue(all(inodes[at] == inode for at in tree), tree)
        data = [at for at, who in owners.items()
                if any(kind == "file" and path == "/pieces" for kind, path, _ in who)]
        self.assertEqual(len(data), 60)

    def test_ext2_and_ext3_with_indirect_blocks(self):
        for kind in ("ext2", "ext3"):
            self.fresh_folder()
            owners, _, _ = self.agree_on_ext(kind, 1024)
            tree = [at for at, who in owners.items() if ("metadata", "/big", None) in who]
            self.assertGreater(len(tree), 18)  # 5,000,000 bytes, 256 KiB an indirect block

    def test_ext4_without_flex_bg_and_with_small_blocks(self):
        self.agree_on_ext("ext4", 1024, ("-O", "^flex_bg,^has_journal"))

    def test_the_smallest_and_the_largest_clusters(self):
        for cluster, kind, block in ((512, "ext4", 1024), (2 << 20, "ext3", 4096)):
            self.fresh_folder()
            self.agree_on_ext(kind, block, cluster=cluster, size="16M")
            few = self.names(self.folder / "image", "--max-findings", 10)
            self.assertEqual(few.get("more", False), cluster == 512)  # a finding for each L2 table
            text = run(BIN / "imgtriage", "--names", "--max-findings", 10, self.folder / "image").out
            self.assertEqual("more places have names" in text, cluster == 512)

    def test_a_lost_block_of_a_vhd(self):
        raw, image, tree = (self.folder / name for name in ("raw", "image", "tree"))
        fill(tree, {"small": 5000, "dir/big": 9_000_000})
        ext(raw, "32M", "ext4", tree, ("-b", 4096))
        inodes = self.icheck(raw, range(raw.stat().st_size // 4096))
        paths = self.ncheck(raw, set(inodes.values()))
        lost = next(at for at in range(16) if "/dir/big" in paths.get(inodes.get(at * 512), ()) and
                    "/dir/big" in paths.get(inodes.get(at * 512 + 511), ()))
        lose_block(raw, image, lost)
        owners = self.owners(self.names(image), 4096)
        self.assertEqual(set(owners), set(range(lost * 512, lost * 512 + 512)))
        for at, who in owners.items():
            self.assertEqual({path for _, path, _ in who} - {None}, paths.get(inodes.get(at), set()))

    def test_tables_of_flex_bg_are_nobodys(self):
        owners, inodes, _ = self.agree_on_ext("ext4", 4096, ("-O", "flex_bg", "-G", "16",
                                                             "-g", "1024"))
        out = run("dumpe2fs", self.folder / "raw").out
        for first, last in re.findall(r"Inode table at (\d+)-(\d+)", out):
            for at in range(int(first), int(last) + 1):
                self.assertEqual({kind for kind, _, _ in owners[at]}, {"metadata"}, at)
                self.assertEqual({path for _, path, _ in owners[at]}, {None}, at)

    def test_holes_and_deleted_files_own_nothing(self):
        raw, image = self.folder / "raw", self.folder / "image"
        ext(raw, options=("-b", 4096))
        hole, gone = self.folder / "hole", self.folder / "gone"
        with open(hole, "wb") as file:
            file.seek(20 * CLUSTER)
            file.write(b"end" * 5000)
        gone.write_bytes(random.Random(1).randbytes(CLUSTER))
        debugfs(raw, f"write {hole} hole", f"write {gone} gone")
        at = raw.read_bytes().index(gone.read_bytes()[:512])
        debugfs(raw, "unlink gone")  # an inode in use without a name: an orphan
        concern(raw, image)
        owners = self.owners(self.names(image), 4096)
        paths = {path for who in owners.values() for _, path, _ in who}
        self.assertIn("/hole", paths)
        self.assertFalse({p for p in paths if p and ("rphan" in p or "gone" in p)})
        self.assertEqual({path for _, path, _ in owners[at // 4096]}, {None})
        held = [offset for who in owners.values() for kind, path, offset in who
                if path == "/hole" and kind == "file"]
        self.assertGreaterEqual(min(held), 20 * CLUSTER)
        self.assertNotIn("/hole", {path for _, path, _ in owners[0]})

    def test_what_cannot_be_read_is_zeros_and_said(self):
        raw, image, tree = (self.folder / name for name in ("raw", "image", "tree"))
        fill(tree, FILES)
        ext(raw, tree=tree)
        table = int(re.search(r"Inode table at (\d+)-", run("dumpe2fs", raw).out)[1])
        block = int(re.search(r"Block size: +(\d+)", run("dumpe2fs", raw).out)[1])
        lose(raw, image, [])
        # Its first inodes are gone, the root folder's among them: no names, no crash, no silence.
        set_entry(image, table * block // CLUSTER, 1 << 63 | 512)
        names = self.names(image)
        where = table * block // CLUSTER * CLUSTER
        self.assertTrue(any(r["guest-offset"] < where + CLUSTER and
                            r["guest-offset"] + r["guest-length"] > where
                            for r in names["faulted"]), names)

    # --- NTFS, FAT, exFAT: ifind, ffind

    def ifind(self, raw, kind, sector_offset, unit, size):
        def inode(block):
            out = run("ifind", "-f", kind, "-o", sector_offset, "-d", block, raw).out.strip()
            return out if re.fullmatch(r"\d+(-\d+-\d+)?", out) else None
        def path(number):
            out = run("ffind", "-f", kind, "-o", sector_offset, raw, number.split("-")[0]).out
            return {line.replace("//", "/") for line in out.splitlines() if line.startswith("/")}
        return inode, path

    def agree_with_sleuthkit(self, raw, kind, unit, base=0, samples=16, whole=None, least=10):
        """Every sampled unit that a file owns has one of the names that the programs give."""
        image = self.folder / "image"
        concern(whole or raw, image)
        names = self.names(image)
        volume = next(v for v in names["volumes"] if v["guest-offset"] == base)
        self.assertTrue(volume["mapped"], volume)
        owners = self.owners(names, unit, base)
        inode_of, paths_of = self.ifind(whole or raw, kind, base // 512, unit, 0)
        rand = random.Random(4)
        files = [at for at, who in owners.items()
                 if any(k == "file" and p and not p.startswith("/$") for k, p, _ in who)]
        self.assertGreater(len(files), 10)
        others = [at for at in owners if at not in set(files)]
        compared = 0
        for at in rand.sample(files, min(samples, len(files))):
            inode = inode_of(self.address(kind, raw, at * unit, unit))
            self.assertIsNotNone(inode, (at, owners[at]))
            theirs = paths_of(inode)
            mine = {path for _, path, _ in owners[at] if path}
            self.assertTrue({m.split(":")[0] for m in mine} & {t.split(":")[0] for t in theirs},
                            (at, mine, theirs))
            compared += 1
        for at in rand.sample(others, min(samples // 3, len(others))):
            if any(p for _, p, _ in owners[at]):
                continue  # the file system's own files
            address = self.address(kind, raw, at * unit, unit)
            inode = address is not None and inode_of(address)
            theirs = paths_of(inode) if inode else set()
            self.assertFalse([t for t in theirs if "$" not in t], (at, owners[at], theirs))
        self.assertGreater(compared, least)
        return names, owners

    def address(self, kind, raw, offset, unit):
        """The Sleuth Kit counts FAT in sectors, NTFS in clusters."""
        if kind.startswith(("fat", "exfat")):
            return offset // 512
        return offset // unit

    def test_ntfs_with_residents_and_streams(self):
        raw = self.folder / "raw"
        run("truncate", "-s", "32M", raw, check=True)
        run("mkfs.ntfs", "-q", "-F", "-f", raw, check=True)
        text, small = self.folder / "text", self.folder / "small"
        text.write_bytes(random.Random(7).randbytes(900_000))
        small.write_bytes(b"resident content of a small file " * 4)
        run("ntfscp", "-q", "-f", raw, text, "report.doc", check=True)
        run("ntfscp", "-q", "-f", raw, small, "small.txt", check=True)
        run("ntfscp", "-q", "-f", "-N", "hidden", raw, text, "small.txt", check=True)
        names, owners = self.agree_with_sleuthkit(raw, "ntfs", 4096)
        record = raw.read_bytes().index(small.read_bytes()) // 1024 * 1024
        resident = [h for h in names["list"]
                    if h["kind"] == "resident" and h["path"] == "/small.txt"]
        self.assertEqual([(h["guest-offset"], h["guest-length"]) for h in resident],
                         [(record, 1024)])
        self.assertTrue(any(h.get("path") == "/small.txt:hidden" for h in names["list"]))

    def test_fat(self):
        for kind, size, options in (("fat12", "4M", ()), ("fat16", "32M", ()),
                                    ("fat32", "34M", ("-s", "1"))):
            self.fresh_folder()
            raw, text = self.folder / "raw", self.folder / "text"
            run("truncate", "-s", size, raw, check=True)
            run("mkfs.vfat", "-F", kind[3:], *options, raw, check=True)
            text.write_bytes(random.Random(7).randbytes(500_000))
            run("mmd", "-i", raw, "::folder", check=True)
            run("mcopy", "-i", raw, text, "::folder/A long name.txt", check=True)
            run("mcopy", "-i", raw, text, "::other.doc", check=True)
            self.agree_with_sleuthkit(raw, kind, 512, samples=9, least=5)

    def test_exfat(self):
        raw, image = self.folder / "raw", self.folder / "image"
        disk = Exfat(raw)
        content = random.Random(2).randbytes(300_000)
        places = {"/report.doc": disk.add("report.doc", content),
                  "/caf\u00e9 in a long name of its own.bin":
                      disk.add("caf\u00e9 in a long name of its own.bin", content[::-1])}
        self.assertIn("report.doc", run("fls", "-f", "exfat", raw, check=True).out)
        self.assertEqual(run("fsck.exfat", "-n", raw).code, 0)
        names, _ = self.agree_with_sleuthkit(raw, "exfat", 512, samples=12)
        self.assertEqual(names["volumes"][0]["type"], "exfat")
        for path, place in places.items():
            hits = [h for h in names["list"] if h.get("path") == path]
            self.assertEqual((hits[0]["guest-offset"], hits[0]["file-offset"]), (place, 0))
            self.assertGreaterEqual(sum(h["guest-length"] for h in hits), 300_000)
        # The same in a partition.
        whole, before = self.folder / "whole", names
        image.unlink()
        partitioned(whole, "gpt", [(2048, raw)], "40M")
        names, _ = self.agree_with_sleuthkit(raw, "exfat", 512, 2048 * 512, samples=12, whole=whole)
        self.assertEqual({(h["path"], h["guest-offset"] - 2048 * 512) for h in names["list"]
                          if h["kind"] == "file"},
                         {(h["path"], h["guest-offset"]) for h in before["list"]
                          if h["kind"] == "file"})

    # --- partition tables

    def test_dos_and_gpt_partitions(self):
        first, second, tree = (self.folder / name for name in ("first", "second", "tree"))
        fill(tree, FILES)
        ext(first, "12M", tree=tree)
        run("truncate", "-s", "16M", second, check=True)
        run("mkfs.ntfs", "-q", "-F", "-f", second, check=True)
        text = self.folder / "text"
        text.write_bytes(random.Random(7).randbytes(300_000))
        run("ntfscp", "-q", "-f", second, text, "report.doc", check=True)
        for table in ("dos", "gpt"):
            whole, image = self.folder / "whole", self.folder / "image"
            whole.unlink(missing_ok=True)
            image.unlink(missing_ok=True)
            partitioned(whole, table, [(2048, first), (40960, second)], "40M")
            concern(whole, image)
            names = self.names(image)
            volumes = [(v["guest-offset"], v["type"], v["mapped"]) for v in names["volumes"]]
            self.assertEqual(volumes, [(2048 * 512, "ext4", True), (40960 * 512, "ntfs", True)])
            found = {(hit["volume"], hit["path"]) for hit in names["list"] if hit.get("path")}
            self.assertLessEqual({(0, "/etc/passwd"), (0, "/caf\u00e9"), (1, "/report.doc")}, found)
            content = whole.read_bytes()
            for volume, path, want in ((0, "/big", (tree / "big").read_bytes()),
                                       (1, "/report.doc", text.read_bytes())):
                for hit in names["list"]:
                    if (hit["volume"], hit.get("path"), hit["kind"]) == (volume, path, "file"):
                        at, offset = hit["guest-offset"], hit["file-offset"]
                        length = min(hit["guest-length"], len(want) - offset)
                        self.assertEqual(content[at:at + length], want[offset:offset + length])
            text_report = run(BIN / "imgfsck", "--names", "-v", image).out
            self.assertIn("partition 2 /report.doc", text_report)

    def test_what_is_not_mapped_says_what_it_is(self):
        """XFS, Btrfs and LVM by their signatures, in partitions."""
        marks = {"xfs": (0, b"XFSB"), "btrfs": (0x10040, b"_BHRfS_M"), "lvm2": (512, b"LABELONE")}
        parts = []
        for i, (kind, (offset, mark)) in enumerate(marks.items()):
            raw = self.folder / kind
            data = bytearray(random.Random(i).randbytes(2 << 20))
            data[:4096] = bytes(4096)
            data[offset:offset + len(mark)] = mark
            if kind == "lvm2":
                data[512 + 24:512 + 32] = b"LVM2 001"
            raw.write_bytes(data)
            parts.append((2048 + i * 8192, raw))
        whole, image = self.folder / "whole", self.folder / "image"
        partitioned(whole, "gpt", parts, "16M")
        concern(whole, image)
        names = self.names(image)
        self.assertEqual([(v["type"], v["mapped"], v["trouble"]) for v in names["volumes"]],
                         [(kind, False, "not mapped") for kind in marks])
        for program in ("imgfsck", "imgtriage"):
            out = run(BIN / program, "--names", image).out
            for kind in marks:
                self.assertRegex(out, rf"{kind}\b.*not mapped")


if __name__ == "__main__":
    main()
