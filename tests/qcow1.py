#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""qcow version 1 against QEMU, both ways: plain, encrypted, compressed, over backing files with
clusters of one sector and larger; our check on QEMU's images; maps."""
import contextlib
import json
import random
import sqlite3

from imglib.programs import (BIN, SECRET, check_json, file_state, imgdump, imgfsck, imgio, qemu_img,
                             run, secret_options)
from imglib.qcow1 import Qcow1 as Image
from imglib.testing import ImageTest, codes, main, summary

KB, MB = 1024, 1024 * 1024
SIZE = 3 * MB + 5 * 512
KINDS = ("plain", "encrypted", "compressed", "backing", "backing-compressed")


class Qcow1(ImageTest):
    def password(self):
        path = self.folder / "password"
        path.write_text(SECRET + "\n")
        return path

    def target(self, path, kind):
        """How QEMU is told of the image."""
        if kind != "encrypted":
            return ["-f", "qcow", str(path)]
        return secret_options() + ["--image-opts", "driver=qcow,encrypt.format=aes,"
                                   f"encrypt.key-secret=key,file.filename={path}"]

    def qemu_io(self, path, kind, commands):
        words = [word for command in commands for word in ("-c", command)]
        done = run("qemu-io", *words, *self.target(path, kind))
        self.assertNotIn("rror", done.out + done.err)
        self.assertNotIn("failed", done.out + done.err)

    def qemu_raw(self, path, kind):
        raw = self.folder / "qemu.raw"
        qemu_img("convert", "-O", "raw", *self.target(path, kind), raw)
        return raw.read_bytes()

    def our_raw(self, path, kind):
        raw = self.folder / "ours.raw"
        key = ["--password-file", self.password()] if kind == "encrypted" else []
        imgio("convert", "--force", *key, path, raw)
        return raw.read_bytes()

    def base(self, seed):
        path = self.folder / "base.img"
        path.write_bytes(random.Random(seed).randbytes(SIZE - 700))
        return path

    def qemu_made(self, kind, seed=1):
        """An image that QEMU wrote, in an order that is not that of the disk."""
        rng = random.Random(seed)
        path = self.folder / "disk.qcow"
        extra = []
        if kind == "encrypted":
            extra = secret_options() + ["-o", "encrypt.format=aes,encrypt.key-secret=key"]
        if kind.startswith("backing"):
            self.base(seed)
            extra = ["-b", "base.img", "-F", "raw"]
        qemu_img("create", "-q", "-f", "qcow", *extra, path, SIZE)
        compress = kind.endswith("compressed")
        commands = []
        for number in range(40):
            cluster = 512 if kind.startswith("backing") else 4096
            at = rng.randrange(SIZE // cluster) * cluster
            if compress and number % 2 and at + cluster <= SIZE:
                commands.append(f"write -c -P {number + 1} {at} {cluster}")
            else:
                length = min(512 * rng.randrange(1, 30), SIZE - at)
                commands.append(f"write -P {number + 1} {at} {length}")
        self.qemu_io(path, kind, commands)
        return path

    def test_what_qemu_writes_is_sound_and_read(self):
        for kind in KINDS:
            with self.subTest(kind=kind):
                self.fresh_folder()
                path = self.qemu_made(kind)
                before = file_state(path)
                code, document = check_json(path, "--deep")
                self.assertEqual(code, 0, summary(document))
                # Compressed writes over clusters leave their old streams behind.
                self.assertLessEqual(codes(document), {"qcow-waste", "qcow-cluster-short"})
                self.assertEqual(document["format"], "qcow")
                self.assertEqual(self.our_raw(path, kind), self.qemu_raw(path, kind))
                self.assertEqual(file_state(path), before)

    def test_what_imgio_writes_qemu_reads(self):
        for kind in ("plain", "encrypted", "backing"):
            for cluster_bits in (9, 12, 16):
                with self.subTest(kind=kind, cluster_bits=cluster_bits):
                    self.fresh_folder()
                    self.write_ours(kind, cluster_bits)

    def write_ours(self, kind, cluster_bits):
        rng = random.Random(cluster_bits)
        path = self.folder / "ours.qcow"
        options = f"cluster_bits={cluster_bits},l2_bits=9"
        key = []
        disk = bytearray(SIZE)
        if kind == "encrypted":
            options += ",encryption=on"
            key = ["--password-file", self.password()]
        if kind == "backing":
            options += ",backing_file=base.img,backing_fmt=raw"
            content = self.base(7).read_bytes()
            disk[:len(content)] = content
        imgio("create", "-f", "qcow", "-o", options, *key, path, SIZE)
        piece = self.folder / "piece"
        for number in range(12):
            at = rng.randrange(SIZE - 9000)
            data = rng.randbytes(rng.randrange(1, 9000))
            if number % 3 == 2:
                at = at >> cluster_bits << cluster_bits
                data = bytes([number]) * min(1 << cluster_bits, SIZE - at)
            piece.write_bytes(data)
            flag = ["--compressed"] if number % 3 == 2 else []
            imgio("write", *key, *flag, path, at, "--from", piece)
            disk[at:at + len(data)] = data
        self.assertTrue(self.qemu_raw(path, kind) == disk)
        self.assertTrue(self.our_raw(path, kind) == disk)
        code, document = check_json(path, "--deep")
        self.assertEqual(code, 0, summary(document))

    def test_maps_are_equal(self):
        for kind in ("plain", "compressed"):
            with self.subTest(kind=kind):
                self.fresh_folder()
                path = self.folder / "dense.qcow"
                run("cp", "--sparse=never", self.qemu_made(kind), path, check=True)
                expected = json.loads(qemu_img("map", "--output=json", "-f", "qcow", path))
                self.assertEqual(json.loads(imgdump("--map", "--json", path).out), expected)

    def test_the_dump_shows_every_table(self):
        path = self.qemu_made("backing-compressed")
        page = imgdump(path).out
        for word in ("cluster_bits", "l1_table_offset", "base.img"):
            self.assertIn(word, page)
        counts = imgdump("--query", "select kind, count(*) from region group by kind order by kind",
                         "--mode", "csv", path).out
        for kind in ("backing-name", "compressed", "data", "header", "l1", "l2"):
            self.assertIn(f"{kind},", counts)
        self.assertEqual(imgdump("--hex", "l1", path).code, 0)

    def test_every_table_against_the_sheet(self):
        for kind in ("plain", "compressed", "backing", "backing-compressed"):
            with self.subTest(kind=kind):
                self.fresh_folder()
                path = self.qemu_made(kind)
                image = Image(path)
                database = self.folder / "db"
                script = imgdump("--sql", path)
                self.assertEqual(script.code, 0, script.err)
                run("sqlite3", database, stdin=script.out.encode(), check=True)
                with contextlib.closing(sqlite3.connect(database)) as db:
                    rows = db.execute("select guest_offset, host_offset, state from mapping where "
                                      "host_offset is not null order by 1").fetchall()
                    ours = {}
                    for guest, host, state in self.single(image, db):
                        ours[guest] = (host, state)
                    self.assertTrue(rows)
                    self.assertEqual(ours, {m.guest: (m.begin, "compressed" if m.compressed
                                                      else "data") for m in image.mapped()})
                    fields = dict(db.execute("select name, value from field where structure = "
                                             "'header'"))
                    for name in ("version", "size", "cluster_bits", "l2_bits", "l1_table_offset"):
                        self.assertEqual(fields[name], image.field(name), name)
                    spans = db.execute("select host_offset, length from region order by 1").fetchall()
                    for claim in image.claims():
                        self.assertTrue(any(at <= claim.begin < at + length or
                                            claim.begin >= path.stat().st_size
                                            for at, length in spans), claim)
                document = json.loads(imgdump("--json", path).out)
                self.assertEqual(document["format"], "qcow")

    def single(self, image, db):
        """Mappings a cluster each."""
        for guest, length, host, state in db.execute(
                "select guest_offset, length, host_offset, state from mapping where host_offset "
                "is not null"):
            step = length if state == "compressed" else image.cluster
            for at in range(0, length, step):
                yield guest + at, host + at, state

    def rewritten(self, path, code, *more):
        """What --fix CODE makes of an image; not in its place."""
        before = path.read_bytes()
        done = imgfsck("--repair", "--fix", code, path)
        self.assertEqual(done.code, 16, done.out + done.err)
        self.assertIn("--output", done.err)
        out = self.folder / "rewritten.qcow"
        self.assertIn(code, codes(check_json(path)[1]))
        done = imgfsck("--repair", "--fix", code, "--output", out, *more, path)
        self.assertIn(done.code, (0, 1), done.out + done.err)
        self.assertTrue(path.read_bytes() == before)
        self.assertNotIn(code, codes(check_json(out, "--deep")[1]))
        return out

    def test_waste_is_given_back_in_a_copy(self):
        for kind in ("plain", "backing"):
            with self.subTest(kind=kind):
                self.fresh_folder()
                path = self.qemu_made(kind)
                self.qemu_io(path, kind, ["write -c -P 9 0 4k" if kind == "plain" else
                                          "write -c -P 9 0 512", "write -P 8 0 4k"])
                with open(path, "ab") as file:
                    file.write(b"x" * 100000)
                out = self.rewritten(path, "qcow-waste")
                qemu_img("compare", "-q", "-f", "qcow", "-F", "qcow", path, out)
                self.assertLess(out.stat().st_size, path.stat().st_size)

    def test_larger_clusters_over_a_base_become_what_qemu_writes_to(self):
        content = self.base(3).read_bytes()
        path = self.folder / "ours.qcow"
        imgio("create", "-f", "qcow", "-o",
              "cluster_bits=12,l2_bits=9,backing_file=base.img,backing_fmt=raw", path, SIZE)
        (self.folder / "piece").write_bytes(b"\5" * 3000)
        imgio("write", path, 10000, "--from", self.folder / "piece")
        disk = bytearray(content.ljust(SIZE, b"\0"))
        disk[10000:13000] = b"\5" * 3000
        self.assertTrue(self.qemu_raw(path, "backing") == disk)
        out = self.rewritten(path, "qcow-backing-cluster")
        self.qemu_io(out, "backing", ["write -P 6 40960 512"])
        disk[40960:40960 + 512] = b"\6" * 512
        self.assertTrue(self.qemu_raw(out, "backing") == disk, "QEMU has lost bytes of the base")
        # In the image itself it loses them, which is what the warning is about.
        self.qemu_io(path, "backing", ["write -P 6 40960 512"])
        self.assertFalse(self.qemu_raw(path, "backing") == disk)

    def test_a_lost_base_is_given_up_by_name(self):
        path = self.qemu_made("backing")
        (self.folder / "base.img").unlink()
        self.assertEqual(imgfsck("--repair=all", path).code, 0)
        self.assertIn("qcow-backing-missing", codes(check_json(path)[1]))
        self.assertEqual(imgfsck("--chain", path).code, 4)
        done = imgfsck("--repair", "--fix", "qcow-backing-missing", path)
        self.assertIn(done.code, (0, 1), done.out + done.err)
        # The bytes of the name are nobody's now.
        self.assertLessEqual(codes(check_json(path, "--chain")[1]), {"qcow-waste"})
        self.qemu_raw(path, "plain")

    def test_wrong_and_missing_keys(self):
        path = self.qemu_made("encrypted")
        done = run(BIN / "imgio", "read", path, 0, 512)
        self.assertEqual(done.code, 8)
        self.assertIn("passphrase", done.err)
        self.assertEqual(check_json(path, "--deep")[0], 0)  # the tables need no key


if __name__ == "__main__":
    main()
