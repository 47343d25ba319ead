#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""imgdump --sql piped into sqlite3 and imgdump --db give equal databases; --query answers from the
live image what the database answers."""
import csv
import io
import json
import sqlite3

from imglib.make import Recipe
from imglib.programs import imgdump, run
from imglib.qcow2 import Qcow2
from imglib.testing import ImageTest, main

RECIPES = [Recipe(), Recipe("snapshots", "v2"), Recipe("snapshots", "v3", 4096, 2),
           Recipe("zlib", "v3", 65536), Recipe("extended-l2", "v3", 16384),
           Recipe("bitmaps"), Recipe("data-file"), Recipe("backing"), Recipe("luks", "v3", 65536)]
DAMAGES = ["l2-zeroed", "snap-l1-past-eof", "bitmap-dir-ones", "refcount-block-zeroed-64",
           "hdr-cluster-bits-max", "compr-reserved", "hdr-size-cap", "snap-name-nul"]


def contents(database):
    """{table: (declaration, its rows sorted)}"""
    with sqlite3.connect(database) as connection:
        tables = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
        version = connection.execute("PRAGMA user_version").fetchone()
        found = {"user_version": version}
        for name, declaration in tables:
            rows = connection.execute(f'SELECT * FROM "{name}"').fetchall()
            found[name] = (declaration, sorted(rows, key=repr))
    connection.close()
    return found


class Sql(ImageTest):
    def databases(self, path):
        """(by way of --sql, by way of --db)"""
        script, direct = self.folder / "a.db", self.folder / "b.db"
        dump = imgdump("--sql", path)
        self.assertEqual(dump.code, 0, dump.err)
        loaded = run("sqlite3", "-bail", script, stdin=dump.out.encode())
        self.assertEqual((loaded.code, loaded.err), (0, ""))
        done = imgdump("--db", direct, path)
        self.assertEqual(done.code, 0, done.err)
        return contents(script), contents(direct)

    def compare(self, path):
        script, direct = self.databases(path)
        self.assertEqual(sorted(script), sorted(direct))
        for table in script:
            self.assertEqual(script[table], direct[table], table)
        self.assertGreaterEqual(set(direct), {"image", "field", "region", "mapping", "refcount",
                                              "snapshot", "bitmap", "link", "finding"})
        return direct

    def test_sound_images(self):
        for recipe in RECIPES:
            with self.subTest(recipe=recipe):
                self.fresh_folder()
                tables = self.compare(self.sound(recipe))
                for table in ("image", "field", "region", "mapping", "refcount"):
                    self.assertTrue(tables[table][1], f"{table} is empty")

    def test_damaged_images(self):
        for name in DAMAGES:
            with self.subTest(damage=name):
                self.compare(self.damaged(name)[0])

    def test_existing_database_is_refused(self):
        path = self.sound(Recipe())
        database = self.folder / "there.db"
        database.write_text("mine")
        done = imgdump("--db", database, path)
        self.assertEqual(done.code, 8)
        self.assertIn("there.db", done.err)
        self.assertEqual(database.read_text(), "mine")

    def query(self, path, sql, mode="json"):
        done = imgdump("--query", sql, "--mode", mode, path)
        self.assertEqual(done.code, 0, done.err)
        return done.out

    def test_query_answers_from_the_live_image(self):
        path = self.sound(Recipe("snapshots"))
        with Qcow2(path) as image:
            mapped = {layer: sum(min(image.cluster_size, image.size - slot.guest)
                                 for slot in image.slots(layer) if image.state(slot) == "data")
                      for layer, _, _ in image.layers()}
            counted = sum(image.stored_counts().values()) * image.cluster_size
        rows = json.loads(self.query(
            path, "SELECT layer, sum(length) AS bytes FROM mapping WHERE state = 'data' "
            "GROUP BY layer ORDER BY layer"))
        self.assertEqual({str(row["layer"]): row["bytes"] for row in rows}, mapped)
        rows = json.loads(self.query(
            path, "SELECT sum(length * stored) AS total FROM refcount"))
        self.assertEqual(rows[0]["total"], counted)

    def test_modes(self):
        path = self.sound(Recipe())
        sql = "SELECT name, value FROM field WHERE structure = 'header' AND name = 'cluster_bits'"
        self.assertEqual([int(row["value"]) for row in json.loads(self.query(path, sql))], [12])
        lines = self.query(path, sql, "jsonl").splitlines()
        self.assertEqual([json.loads(line)["name"] for line in lines], ["cluster_bits"])
        rows = list(csv.reader(io.StringIO(self.query(path, sql, "csv"))))
        self.assertEqual(rows, [["name", "value"], ["cluster_bits", "12"]])
        self.assertIn("cluster_bits", self.query(path, sql, "table"))

    def test_bad_query(self):
        path = self.sound(Recipe())
        done = imgdump("--query", "SELECT a FROM nowhere", path)
        self.assertIn(done.code, (8, 16))
        self.assertIn("nowhere", done.err)


if __name__ == "__main__":
    main()
