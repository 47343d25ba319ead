#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""imgfsck --names: which files of the guest findings, lost ranges, unclaimed clusters and bitmaps
concern, in text, JSON and the database; what it opens for that, and what it does not."""
import json
import re
import sqlite3
import struct

from imglib.guests import CLUSTER, COPIED, ext, fill, l2_entry, lose, number, set_entry
from imglib.programs import BIN, folder_state, imgfsck, qemu_img, qemu_io, run
from imglib.testing import ImageTest, main
from imglib.traced import TRACED

EVIL = "\x1b[31m<script>\u202e"
FILES = {"alpha": 3 * CLUSTER, "beta": 3 * CLUSTER, "etc/passwd": 5 * CLUSTER,
         "etc/" + EVIL: 3 * CLUSTER}


class FsckNames(ImageTest):
    def disk(self):
        raw, tree = self.folder / "raw", self.folder / "tree"
        fill(tree, FILES)
        ext(raw, tree=tree, options=("-b", 4096))
        return raw

    def clusters(self, raw, name):
        """The guest clusters that belong to the file as a whole."""
        out = run("debugfs", "-R", f'blocks "{name}"', raw, check=True).out
        blocks = [int(word) for word in out.split()]
        return [at for at in range(raw.stat().st_size // CLUSTER)
                if sum(b * 4096 // CLUSTER == at for b in blocks) == CLUSTER // 4096]

    def check(self, image, *options, code=4):
        before = folder_state(self.folder)
        done = imgfsck("--json", "--names", *options, image)
        self.assertEqual(done.code, code, done.err + done.out[:500])
        self.assertEqual(folder_state(self.folder), before)
        return json.loads(done.out)

    def paths(self, finding):
        return {name["path"] for name in finding["names"] if "path" in name}

    def test_damage_and_lost_ranges(self):
        raw, image = self.disk(), self.folder / "image"
        cluster = self.clusters(raw, "/etc/passwd")[1]
        lose(raw, image, [cluster])
        document = self.check(image)
        finding = next(f for f in document["findings"] if f["code"] == "qcow2-l2-entry-past-eof")
        self.assertEqual([(n["path"], n["guest-offset"], n["guest-length"], n["kind"])
                          for n in finding["names"]],
                         [("/etc/passwd", cluster * CLUSTER, CLUSTER, "file")])
        offset = finding["names"][0]["file-offset"]
        content = (self.folder / "tree/etc/passwd").read_bytes()[offset:offset + CLUSTER]
        self.assertEqual(raw.read_bytes()[cluster * CLUSTER:][:CLUSTER], content)
        self.assertEqual(document["names"]["active"]["volumes"][0]["type"], "ext4")
        text = imgfsck("--names", image).out
        self.assertIn(f"in: /etc/passwd, from its byte {offset:#x} on (64 KiB)", text)
        self.assertNotIn("names", json.loads(imgfsck("--json", image).out))
        planned = self.check(image, "--repair=all", "--dry-run")
        self.assertEqual(self.paths(planned["findings"][0]), {"/etc/passwd"})
        for lost in planned["repair"]["lost"]:
            self.assertEqual([n["path"] for n in lost["names"]], ["/etc/passwd"])

    def test_hostile_names_stay_text(self):
        raw, image = self.disk(), self.folder / "image"
        lose(raw, image, self.clusters(raw, "/etc/" + EVIL)[:1])
        finding = self.check(image)["findings"][0]
        self.assertEqual(self.paths(finding), {"/etc/" + EVIL})
        text = imgfsck("--names", image).out
        self.assertIn("<script>", text)
        self.assertNotIn("\x1b", text)
        self.assertNotIn("\u202e", text)

    def test_both_claimants_of_an_overlap(self):
        raw, image = self.disk(), self.folder / "image"
        lose(raw, image, [])
        first, second = (self.clusters(raw, name)[0] for name in ("/alpha", "/etc/passwd"))
        set_entry(image, second, number(image, l2_entry(image, first)))
        document = self.check(image)
        shared = [f for f in document["findings"] if f["also"]]
        self.assertTrue(shared, document["findings"])
        text = imgfsck("--names", image).out
        self.assertIn("/alpha", text)
        self.assertIn("/etc/passwd", text)

    def test_neighbours_of_what_leaked(self):
        raw, image = self.disk(), self.folder / "image"
        lose(raw, image, [])
        clusters = self.clusters(raw, "/etc/passwd")
        set_entry(image, clusters[1], 0)  # its cluster leaks, between two others of the file
        document = self.check(image)
        leak = next(f for f in document["findings"] if f["severity"] == "leak")
        self.assertEqual({n["path"] for side in ("before", "after")
                          for n in leak["neighbours"][side]}, {"/etc/passwd"})
        text = imgfsck("--names", image).out
        self.assertRegex(text, r"lies behind: /etc/passwd, from its byte")
        self.assertRegex(text, r"lies before: /etc/passwd, from its byte")

    def test_what_changed_since_a_bitmap(self):
        raw, image = self.disk(), self.folder / "image"
        lose(raw, image, [])
        qemu_img("bitmap", "--add", "-g", "65536", image, "monday")
        clusters = self.clusters(raw, "/beta")
        qemu_io(image, [f"write -P 7 {clusters[0] * CLUSTER} 1000",
                        f"write -P 7 {clusters[-1] * CLUSTER} 1000"])
        document = self.check(image, code=0)
        bitmap = document["names"]["active"]["bitmaps"][0]
        self.assertEqual((bitmap["name"], bitmap["bytes"]), ("monday", 2 * CLUSTER))
        self.assertEqual([(f["path"], f["bytes"]) for f in bitmap["files"]],
                         [("/beta", 2 * CLUSTER)])
        text = imgfsck("--names", image).out
        self.assertRegex(text, r'changed since bitmap "monday" began \(128 KiB\):\n +128 KiB  /beta')
        done = run(BIN / "imgtriage", "--names", image)
        self.assertIn("128 KiB of /beta of the guest", done.out)

    def test_a_stale_bitmap_is_not_believed(self):
        raw, image = self.disk(), self.folder / "image"
        lose(raw, image, [])
        qemu_img("bitmap", "--add", image, "monday")
        table = json.loads(run(BIN / "imgdump", "--json", image, check=True).out)
        at = table["bitmaps"][0]["host-offset"]
        with open(image, "r+b") as file:
            file.seek(at + 12)
            flags = struct.unpack(">I", file.read(4))[0]
            file.seek(at + 12)
            file.write(struct.pack(">I", flags | 1))
        done = imgfsck("--names", image)
        self.assertRegex(done.out, r'bitmap "monday" began: not known: ')

    def test_snapshots_have_names_of_their_own(self):
        raw, image = self.disk(), self.folder / "image"
        lose(raw, image, [])
        cluster = self.clusters(raw, "/alpha")[0]
        qemu_img("snapshot", "-c", "one", image)
        qemu_io(image, [f"write -P 9 {self.clusters(raw, '/beta')[0] * CLUSTER} 64k"])
        with open(image, "rb") as file:
            file.seek(64)  # the first snapshot's L1 table
            table = struct.unpack(">Q", file.read(8))[0]
            l1 = number(image, table)
        l2 = number(image, l1) & ~COPIED
        with open(image, "r+b") as file:
            file.seek(l2 + 8 * cluster)
            file.write(struct.pack(">Q", 1 << 40))
        document = self.check(image)
        mine = [f for f in document["findings"]
                if f.get("layer") not in (None, "", "active") and f.get("guest-offset") is not None]
        self.assertTrue(mine, document["findings"])
        self.assertIn("/alpha", set().union(*(self.paths(f) for f in mine)))

    def test_the_database(self):
        raw, image, db = (self.disk(), self.folder / "image", self.folder / "db")
        lose(raw, image, [self.clusters(raw, "/etc/passwd")[0]])
        self.assertEqual(imgfsck("--names", "--db", db, image).code, 4)
        rows = sqlite3.connect(db).execute(
            "SELECT n.path, n.file_offset - f.guest_offset + n.guest_offset, v.type "
            "FROM finding f JOIN guest_name n USING (image_id) JOIN guest_volume v "
            "USING (image_id, volume) WHERE f.code = 'qcow2-l2-entry-past-eof' "
            "AND n.guest_offset < f.guest_offset + f.guest_length "
            "AND f.guest_offset < n.guest_offset + n.length").fetchall()
        self.assertEqual([(row[0], row[2]) for row in rows], [("/etc/passwd", "ext4")])

    def test_files_below_are_opened_with_chain_alone(self):
        raw, base, image = self.disk(), self.folder / "base", self.folder / "image"
        lose(raw, base, [])
        qemu_img("create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", image)
        cluster = self.clusters(raw, "/beta")[0]
        qemu_io(image, [f"write -P 7 {cluster * CLUSTER} 64k"])
        set_entry(image, cluster, COPIED | 1 << 40)
        trace = self.folder / "trace"
        done = run("strace", "-f", "-e", "trace=openat,open,execve,socket", "-o", trace,
                   BIN / "imgfsck", "--names", image, env=TRACED)
        self.assertEqual(done.code, 4, done.err)
        self.assertIn("no names of guest files: its disk needs the files that it names", done.out)
        self.assertNotIn("base", trace.read_text())
        trace.unlink()
        done = imgfsck("--names", "--chain", image)
        self.assertIn("in: /beta, from its byte", done.out)

    def test_the_helper_is_filtered_and_nothing_is_written(self):
        raw, image = self.disk(), self.folder / "image"
        lose(raw, image, [self.clusters(raw, "/beta")[0]])
        trace = self.folder / "trace"
        done = run("strace", "-f", "-e", "trace=openat,open,seccomp,socket,execve", "-o", trace,
                   BIN / "imgfsck", "--names", image, env=TRACED)
        self.assertIn("in: /beta", done.out)
        calls = trace.read_text()
        if "seccomp" in calls:  # not in builds with sanitizers
            workers = {line.split()[0] for line in calls.splitlines()
                       if "seccomp(SECCOMP_SET_MODE_FILTER, 0" not in line
                       and "SECCOMP_SET_MODE_FILTER" in line}
            self.assertGreaterEqual(len(workers), 2, calls)
        self.assertFalse(re.findall(r"O_WRONLY|O_RDWR|socket\(AF_INET", calls))

    def test_several_images_and_a_broken_file_system(self):
        raw, one, two = self.disk(), self.folder / "one", self.folder / "two"
        clusters = self.clusters(raw, "/beta")
        lose(raw, one, clusters[:1])
        data = bytearray(raw.read_bytes())
        data[1024:2048] = bytes(range(256)) * 4  # no superblock any more
        raw.write_bytes(data)
        lose(raw, two, clusters[:1])
        done = imgfsck("--names", "--json", two, one)
        documents = [json.loads(line) for line in done.out.splitlines()]
        self.assertEqual(documents[0]["names"]["active"]["volumes"][0]["trouble"], "not mapped")
        self.assertEqual(self.paths(documents[1]["findings"][0]), {"/beta"})

    def test_after_a_repair(self):
        raw, image = self.disk(), self.folder / "image"
        lose(raw, image, self.clusters(raw, "/beta")[:1])
        done = imgfsck("--names", "--repair=all", "--no-undo", image)
        self.assertIn("/beta", done.out)
        self.assertEqual(imgfsck("--names", image).code, 0)


if __name__ == "__main__":
    main()
