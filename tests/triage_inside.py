#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What imgtriage finds inside images besides damage: bytes that nobody claims, encryption by a plan,
and what rules of the user's own yield."""
import hashlib
import json
import pathlib
import random
import struct

from imglib.make import CONTENTS, Recipe, valid
from imglib.programs import BIN, qemu_img, qemu_io, run, temp_dir
from imglib.testing import ImageTest, main

RULES = pathlib.Path(__file__).resolve().parent.parent / "rules"
CLUSTER = 65536
TEXT = b"the quick brown fox jumps over the lazy dog\n"


def text(length, mark=b""):
    return (mark + TEXT * (length // len(TEXT) + 1))[:length]


def patch(path, offset, data):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def big(path, offset):
    with open(path, "rb") as file:
        file.seek(offset)
        return struct.unpack(">Q", file.read(8))[0]


def entry_at(path, cluster):
    """(where the L2 entry of a guest cluster lies, the cluster's place in the file)."""
    table = big(path, big(path, 40)) & ~(1 << 63)
    return table + 8 * cluster, big(path, table + 8 * cluster) & 0x00fffffffffffe00


def in_place(path):
    """How QEMU's tools are told of an image on a host that cannot give back parts of a file."""
    return ["--image-opts", "driver=qcow2,pass-discard-request=off,pass-discard-snapshot=off,"
            f"file.filename={path}"]


class Inside(ImageTest):
    def triage(self, *options, code=None):
        done = run(BIN / "imgtriage", "--json", "-", *options)
        self.assertIn(done.code, (0, 4) if code is None else (code,), done.err)
        return {line["filename"].rsplit("/", 1)[-1]: line
                for line in map(json.loads, done.out.splitlines())}

    def only(self, path, *options):
        return self.triage(*options, path)[path.name]

    def disk(self, name="disk", clusters=8, form="qcow2"):
        """An image whose clusters say which they are, written from the last to the first."""
        path = self.folder / name
        qemu_img("create", "-q", "-f", form, path, "64M")
        commands = []
        for cluster in reversed(range(clusters)):
            source = self.folder / f"cluster{cluster}"
            source.write_bytes(text(CLUSTER, b"cluster %d " % cluster))
            commands.append(f"write -s {source} {cluster * CLUSTER} {CLUSTER}")
        qemu_io(path, commands, ["-f", form, path])
        for cluster in range(clusters):
            (self.folder / f"cluster{cluster}").unlink()
        return path


class Unclaimed(Inside):
    def at(self, document, offset):
        found = [r for r in document["unclaimed"]["list"]
                 if r["offset"] <= offset < r["offset"] + r["length"]]
        self.assertEqual(len(found), 1, f"{offset:#x} {document['unclaimed']}")
        return found[0]

    def test_sound_images_hold_nothing_unclaimed(self):
        for content in CONTENTS:
            if content in ("bitmaps", "snapshots", "zlib", "zstd", "luks"):
                continue  # QEMU leaves old tables, freed data and encrypted padding behind there
            recipe = Recipe(content)
            if not valid(recipe):
                recipe = recipe._replace(cluster_size=16384)
            with self.subTest(content=content):
                self.fresh_folder()
                document = self.only(self.sound(recipe))
                self.assertEqual(document["unclaimed"]["list"], [])
        disk, packed = self.disk(), self.folder / "packed"
        qemu_img("convert", "-c", "-O", "qcow2", disk, packed)
        self.assertEqual(self.only(packed)["unclaimed"]["list"], [])

    def test_each_kind_of_place_and_of_content(self):
        path = self.disk()
        # Freed: QEMU gives clusters back and leaves their bytes.
        _, freed = entry_at(path, 3)
        qemu_io(path, [f"discard {3 * CLUSTER} {CLUSTER}"], in_place(path))
        # Leaked: the entry goes, the count stays.
        entry, leaked = entry_at(path, 5)
        patch(path, leaked, random.Random(1).randbytes(CLUSTER))
        patch(path, entry, bytes(8))
        patch(path, 0x4000, b"a note in the header's cluster" * 40)
        end = path.stat().st_size
        patch(path, end, b"SQLite format 3\0" + b"\7" * 20000)
        document = self.only(path, "--policy", "strict")
        expected = {freed: ("free", "text"), leaked: ("leaked", "random"),
                    0x4000: ("header-slack", "text"), end: ("trailing", "known-header")}
        for offset, (origin, kind) in expected.items():
            found = self.at(document, offset)
            self.assertEqual((found["origin"], found["class"]), (origin, kind), hex(offset))
        self.assertEqual(len(document["unclaimed"]["list"]), len(expected))
        self.assertEqual(self.at(document, end)["what"], "SQLite database")
        self.assertEqual(document["verdict"], "unsafe")
        shown = [bytes.fromhex(reason["bytes"]) for reason in document["reasons"]
                 if reason["code"] == "remnant"]
        self.assertTrue(any(bytes_.startswith(b"cluster 3 ") for bytes_ in shown), shown)

    def test_what_is_left_of_a_deleted_snapshot(self):
        path = self.disk()
        _, old = entry_at(path, 2)
        qemu_img("snapshot", "-c", "secret plans", path)
        table = big(path, 64)
        l1 = big(path, table)
        l2 = big(path, l1) & ~(1 << 63)
        qemu_io(path, [f"write -P 0x77 {2 * CLUSTER} {CLUSTER}"])
        qemu_img("snapshot", "-d", "secret plans", *in_place(path))
        document = self.only(path)
        self.assertEqual(self.at(document, table)["what"], "snapshot table: secret plans")
        self.assertEqual(self.at(document, l1)["what"], "l1 table")
        self.assertEqual(self.at(document, l2)["what"], "l2 table")
        self.assertEqual(self.at(document, old)["class"], "text")

    def test_slack_of_a_vhd_and_behind_a_cow(self):
        vhd = self.disk("disk.vhd", form="vpc")
        size = vhd.stat().st_size
        document = self.only(vhd)
        self.assertEqual(document["unclaimed"]["list"], [])
        footer = vhd.read_bytes()[-512:]
        patch(vhd, size - 512, text(3 * 512) + footer)
        document = self.only(vhd)
        self.assertEqual(self.at(document, size - 512)["class"], "text")
        base, cow = self.folder / "base", self.folder / "cow"
        base.write_bytes(bytes(1 << 20))
        run("uml_mkcow", cow, base, check=True)
        patch(cow, cow.stat().st_size, text(5000))
        found = self.only(cow)["unclaimed"]["list"]
        self.assertEqual({r["origin"] for r in found}, {"trailing"})

    def test_copies_and_their_index(self):
        path = self.disk()
        qemu_io(path, [f"discard {n * CLUSTER} {CLUSTER}" for n in (1, 4)], in_place(path))
        patch(path, path.stat().st_size, b"%PDF-1.7 " + random.Random(2).randbytes(9000))
        before = hashlib.sha256(path.read_bytes()).hexdigest()
        copies = self.folder / "copies"
        document = self.only(path, "--orphans-to", copies)
        data = path.read_bytes()
        self.assertEqual(hashlib.sha256(data).hexdigest(), before)
        lines = (copies / "index.tsv").read_text().splitlines()
        rows = [dict(zip(lines[0].split("\t"), line.split("\t"))) for line in lines[1:]]
        self.assertEqual(len(rows), len(document["unclaimed"]["list"]))
        for row in rows:
            offset, length = int(row["host_offset"]), int(row["length"])
            copy = (copies / row["file"]).read_bytes()
            self.assertEqual(copy, data[offset:offset + length])
            self.assertEqual(row["sha256"], hashlib.sha256(copy).hexdigest())
            self.assertEqual(row["image"], str(path))
            self.assertTrue(row["origin"] and row["class"])
        self.assertEqual({path.relative_to(copies).as_posix()
                          for path in copies.rglob("*.bin")}, {row["file"] for row in rows})
        # Never into a folder that is there, never beside the evidence.
        self.assertEqual(run(BIN / "imgtriage", "--orphans-to", copies, path).code, 8)
        store = self.folder / "store"
        store.mkdir()
        path.rename(store / "disk")
        self.assertEqual(run(BIN / "imgtriage", "--orphans-to", store / "x", store).code, 16)


class Entropy(Inside):
    def test_a_plan_and_what_is_left_of_the_disk(self):
        path = self.disk(clusters=96)
        noise, left = random.Random(4), set(range(96))
        size = path.stat().st_size
        places = {entry_at(path, cluster)[1]: cluster for cluster in range(96)}
        for block in range(8, size // CLUSTER - 4, 6):  # one block of six, from the ninth on
            offset = block * CLUSTER
            patch(path, offset, noise.randbytes(CLUSTER))
            left.discard(places.get(offset))
        found = self.only(path, "--entropy")["entropy"]
        self.assertEqual((found["plan"]["on"], found["plan"]["off"]), (CLUSTER, 5 * CLUSTER))
        self.assertEqual(found["plan"]["begin"], 8 * CLUSTER)
        plain = {offset // CLUSTER for r in found["disk-plain"] for offset in
                 range(r["guest-offset"], r["guest-offset"] + r["guest-length"], CLUSTER)}
        self.assertEqual(plain, left)
        self.assertEqual(found["disk-encrypted-bytes"], (96 - len(left)) * CLUSTER)

    def test_a_file_that_is_too_large_is_said_to_be(self):
        with temp_dir(on_disk=False) as folder:  # ext4 has no such files
            path = folder / "disk"
            run("truncate", "-s", "65T", path, check=True)
            patch(path, 446, b"\x80\0\0\0\x83\0\0\0\0\x08\0\0\0\0\x10\0")
            patch(path, 510, b"\x55\xaa")
            page = self.folder / "page"
            found = self.only(path, "--entropy", "--report", page)["entropy"]
            self.assertEqual(set(found), {"trouble"})
            said = "files of more than 64 TiB are not looked at"
            self.assertIn(said, found["trouble"])
            self.assertIn(said, page.read_text())
            self.assertIn(said, run(BIN / "imgtriage", "--entropy", path).out)

    def test_head_and_tail(self):
        path = self.folder / "disk"
        noise = random.Random(5)
        path.write_bytes(text(64 * CLUSTER))
        run("mkfs.ext4", "-q", "-E", "nodiscard", "-F", path, check=True)
        patch(path, 63 * CLUSTER - 5 * CLUSTER, noise.randbytes(6 * CLUSTER))
        found = self.only(path, "--entropy")["entropy"]
        self.assertEqual((found["head"], found["tail"]), (0, 6 * CLUSTER))
        self.assertNotIn("plan", found)


BAD_RULES = {
    "broken": ("SELEC nothing", "syntax error"),
    "endless": ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT 'info' AS "
                "severity, 'x' AS message, max(i) AS offset, 0 AS length FROM n", "too long"),
    "writes": ("DELETE FROM image", "not authorized"),
    "attaches": ("ATTACH '/etc/passwd' AS p", "not authorized"),
    "attaches-new": ("ATTACH 'made.db' AS p", "not authorized"),
    "loads": ("SELECT load_extension('/tmp/x.so') AS severity, 1 AS message, 1 AS offset, 1 AS "
              "length", "load_extension"),
    "columns": ("SELECT 1 AS severity", "has to yield"),
    "severity": ("SELECT 'dire' AS severity, 'x' AS message, 0 AS offset, 0 AS length", "dire"),
    "huge": ("SELECT 'info' AS severity, hex(zeroblob(1000000000)) AS message, 0 AS offset, 0 AS "
             "length", "too big"),
    "two": ("SELECT 'info' AS severity, 'x' AS message, 0 AS offset, 0 AS length; SELECT 1",
            "more than one"),
    "empty": ("-- nothing", "no query"),
}
GOOD_RULE = ("SELECT 'warning' AS severity, 'format ' || format AS message, 7 AS offset, "
             "NULL AS length FROM image")


class Rules(Inside):
    def rules(self, document):
        return {rule["rule"]: rule for rule in document["rules"]}

    def test_a_bad_rule_costs_itself_alone(self):
        folder = self.folder / "rules"
        folder.mkdir()
        (folder / "good.sql").write_text(GOOD_RULE)
        (folder / "evil.sql").write_text(
            "SELECT 'info' AS severity, char(27) || '[31m<b>' AS message, -5 AS offset, 1 AS length")
        (folder / "many.sql").write_text(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5000) SELECT "
            "'info' AS severity, i AS message, 0 AS offset, 0 AS length FROM n")
        (folder / "no-rule.txt").write_text("ignored")
        for name, (sql, _) in BAD_RULES.items():
            (folder / f"{name}.sql").write_text(sql)
        path = self.disk()
        report = self.folder / "report"
        done = run(BIN / "imgtriage", "--rules", folder, "--json", report, path, cwd=self.folder)
        self.assertNotIn("\x1b", done.out)
        self.assertIn("warning: rule good: format qcow2", done.out)
        rules = self.rules(json.loads(report.read_text()))
        self.assertEqual(set(rules), set(BAD_RULES) | {"good", "evil", "many"})
        for name, (_, error) in BAD_RULES.items():
            self.assertIn(error, rules[name].get("error", ""), name)
            self.assertEqual(rules[name]["hits"], [], name)
        self.assertEqual(rules["good"]["hits"], [
            {"severity": "warning", "message": "format qcow2", "offset": 7}])
        self.assertNotIn("offset", rules["evil"]["hits"][0])
        self.assertEqual(len(rules["many"]["hits"]), 1000)
        self.assertIs(rules["many"]["more"], True)
        self.assertFalse((self.folder / "made.db").exists())

    def test_folders_without_rules(self):
        path = self.disk()
        self.assertEqual(run(BIN / "imgtriage", "--rules", self.folder / "no", path).code, 8)
        (self.folder / "none").mkdir()
        self.assertEqual(run(BIN / "imgtriage", "--rules", self.folder / "none", path).code, 8)

    def test_the_rules_that_come_along(self):
        hits = {rule: [] for rule in ("late-boot-sector", "snapshot-clock", "unclaimed-space")}
        quiet = self.disk("quiet")
        late = self.disk("late", 1)
        qemu_io(late, [f"discard 0 {CLUSTER}", "write -P 5 1M 20M", "write -P 6 0 64k"])
        clock = self.disk("clock")
        for name in ("one", "two"):
            qemu_img("snapshot", "-c", name, clock)
        first = big(clock, 64)
        size = 40 + int.from_bytes(clock.read_bytes()[first + 36:first + 40], "big") + 1 + 3
        patch(clock, first + (size + 7) // 8 * 8 + 16, struct.pack(">I", 1000))
        leaky = self.disk("leaky")
        for cluster in (1, 2):
            patch(leaky, entry_at(leaky, cluster)[0], bytes(8))
        for name, document in self.triage("--rules", RULES, quiet, late, clock, leaky).items():
            for rule, result in self.rules(document).items():
                self.assertNotIn("error", result)
                hits[rule] += [name] * len(result["hits"])
        self.assertEqual(hits, {"late-boot-sector": ["late"], "snapshot-clock": ["clock"],
                                "unclaimed-space": ["leaky"]})


if __name__ == "__main__":
    main()
