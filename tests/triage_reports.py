#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The reports of imgtriage: each is read back by somebody else's program, says what is so, stays
harmless whatever images are called, and comes out the same again."""
import base64
import hashlib
import html.parser
import json
import os
import pathlib
import re
import sqlite3
import stat
import struct
import tempfile
import zlib

from imglib import hostile
from imglib.make import Recipe
from imglib.programs import BIN, file_state, folder_state, imgdump, imgfsck, qemu_img, qemu_io, run
from imglib.testing import ImageTest, main

SCHEMA = pathlib.Path(__file__).resolve().parent / "imglib" / "dfxml.rng"
EVIL = b"\x1b[31m\n<script>document.title='x'</script>\xff&amp;'\"><img src=x onerror=alert(1)>"
OUTPUTS = ("report", "json", "db", "dfxml", "bodyfile", "timesketch")
CLUSTER = 65536
LEAKED, HOLE = 8, 0  # numbers of colours in pictures


def imgtriage(*options, **more):
    return run(BIN / "imgtriage", *options, **more)


class Page(html.parser.HTMLParser):
    """What a browser would make of the page; fails when a tag is not closed where it should be."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.ids, self.links, self.styles = [], [], [], [], []
        self.attributes, self.pictures, self.policy, self.open = [], [], None, []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        assert len(attrs) == len(dict(attrs)), (tag, attrs)  # none twice
        self.tags.append(tag)
        self.attributes += attrs
        attrs = dict(attrs)
        if tag not in ("meta", "br", "rect", "image") or tag == "style":
            self.open.append(tag)
        if "id" in attrs:
            self.ids.append(attrs["id"])
        if tag == "a":
            self.links.append(attrs["href"])
        if tag == "image":
            self.pictures.append(attrs["href"])
        if attrs.get("http-equiv") == "Content-Security-Policy":
            self.policy = attrs["content"]

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        (self.styles if self.open and self.open[-1] == "style" else self.texts).append(data)


def pixels(url):
    """Rows of colour numbers of a PNG in a data URL."""
    png = base64.b64decode(url.removeprefix("data:image/png;base64,"), validate=True)
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, {}
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at:at + 8])
        chunks[kind] = png[at + 8:at + 8 + length]
        at += 12 + length
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    rows = zlib.decompress(chunks[b"IDAT"])
    return [list(rows[y * (width + 1) + 1:(y + 1) * (width + 1)]) for y in range(height)]


class Reports(ImageTest):
    """All tests look at one store and, where that will do, at one run's reports."""
    _store = _out = None

    def store(self):
        if self._store is None:
            self.make_store()
            type(self)._store = self._root / "store"
            os.rename(self.folder / "store", self._store)
        return self._store

    def make_store(self):
        store = self.folder / "store"
        (store / "sub").mkdir(parents=True)
        for name, recipe in (("snapshots", Recipe("snapshots")), ("bitmaps", Recipe("bitmaps")),
                             ("plain", Recipe())):
            os.rename(self.sound(recipe), store / name)
        for name in ("rt-unaligned", "l2-copied-clear"):
            os.rename(self.damaged(name, fresh=False)[0], store / name)
        qemu_img("create", "-q", "-f", "vpc", store / "disk.vhd", "8M")
        qemu_img("create", "-q", "-f", "vmdk", store / "disk.vmdk", "8M")
        qemu_img("create", "-q", "-f", "qcow2", "-b", "plain", "-F", "qcow2", store / "child")
        for case in hostile.CASES:
            if case.name in ("backing-json", "data-file", "vm-state"):
                case.attack(store / case.name)
        qemu_img("create", "-q", "-f", "qcow2", "-u", "-b", os.fsdecode(EVIL[:60]), "-F", "raw",
                 store / "names-evil", "1M")
        (store / "note").write_text("no image")
        with open(os.path.join(os.fsencode(store), b"sub", EVIL.replace(b"/", b"_")), "wb") as file:
            file.write((store / "plain").read_bytes())
        qemu_img("snapshot", "-c", "<b>\x1b]0;evil\x07|x", store / "bitmaps")

    def run_all(self, folder, *options):
        """Every report into a new folder; what the program said."""
        folder.mkdir()
        words = [word for name in OUTPUTS for word in (f"--{name}", folder / name)]
        done = imgtriage("--hash", "md5,sha1,sha256,pieces", "--content", "--entropy", "--policy",
                         "strict", "--orphans-to", folder / "copies", *words, *options,
                         self.store())
        self.assertEqual(done.code, 4, done.err)
        return done.out

    def reports(self):
        """(folder of reports, text)"""
        if self._out is None:
            folder = self._root / "out"
            type(self)._out = folder, self.run_all(folder, "-j", 1)
        return self._out

    def test_the_same_again_and_nothing_touched(self):
        store = self.store()
        before = folder_state(store), folder_state(store / "sub")
        first, text = self.reports()
        second = self.folder / "again"
        self.assertEqual(self.run_all(second, "-j", 3), text)
        names = {path.relative_to(first) for path in first.rglob("*") if path.is_file()}
        self.assertEqual(names, {path.relative_to(second) for path in second.rglob("*")
                                 if path.is_file()})
        self.assertGreater(len(names), len(OUTPUTS) + 1)
        for name in names:
            self.assertEqual(hashlib.sha256((first / name).read_bytes()).hexdigest(),
                             hashlib.sha256((second / name).read_bytes()).hexdigest(), name)
        self.assertEqual(before, (folder_state(store), folder_state(store / "sub")))

    def test_what_the_host_has_in_memory_is_no_matter(self):
        """Space that was set aside and never written is a hole to ext4 until somebody reads it."""
        with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="imgfsck-test-") as name:
            store = pathlib.Path(name)
            qemu_img("create", "-q", "-f", "qcow2", "-o", "preallocation=falloc", store / "full",
                     "16M")
            qemu_img("create", "-q", "-f", "qcow2", store / "tail", "16M")
            run("fallocate", "-o", "1M", "-l", "1M", store / "tail", check=True)
            run("truncate", "-s", "8M", store / "ext", check=True)
            run("mkfs.ext4", "-q", store / "ext", check=True)
            for path in store.iterdir():
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            results = []
            for number in range(2):
                out = self.folder / f"memory{number}"
                out.mkdir()
                imgtriage(*(w for n in OUTPUTS for w in (f"--{n}", out / n)), "--entropy", "--deep",
                          store)
                results.append({n: (out / n).read_bytes() for n in OUTPUTS})
                for path in store.iterdir():
                    path.read_bytes()
            self.assertEqual(*results)

    def test_outputs_are_kept_apart(self):
        store, out = self.store(), self.folder / "out"
        for words in (("--report", out, "--dfxml", out), ("--db", store / "x.db"),
                      ("--report", store / "sub" / "x.html")):
            self.assertEqual(imgtriage(*words, store).code, 16, words)
            self.assertFalse(os.path.lexists(words[1]))
        out.write_text("mine")
        for name in OUTPUTS:
            self.assertEqual(imgtriage(f"--{name}", out, store).code, 8, name)
        self.assertEqual(out.read_text(), "mine")

    def test_one_report_to_stdout(self):
        store, out = self.store(), self.folder / "out"
        for name in OUTPUTS:
            if name == "db":
                self.assertEqual(imgtriage("--db", "-", store).code, 16)
                continue
            self.assertEqual(imgtriage(f"--{name}", out, store).code, 4)
            self.assertEqual(imgtriage(f"--{name}", "-", store).out, out.read_text(), name)
            out.unlink()
        self.assertEqual(imgtriage("--json", "-", "--dfxml", "-", store).code, 16)

    def test_the_page(self):
        store = self.store()
        data = (self.reports()[0] / "report").read_bytes()
        page = Page(data.decode("utf-8"))
        self.assertEqual(page.open, [])
        self.assertLessEqual(set(page.tags), {
            "html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "h4", "p",
            "span", "div", "table", "tr", "th", "td", "a", "ul", "li", "section", "code", "br",
            "details", "summary", "svg", "text", "rect", "image"})
        self.assertLessEqual({name for name, _ in page.attributes}, {
            "lang", "charset", "http-equiv", "content", "name", "id", "class", "href", "role",
            "width", "height", "viewbox", "x", "y", "fill", "stroke", "text-anchor", "font-size",
            "font-family", "preserveaspectratio"})
        for name, value in page.attributes:
            self.assertRegex(value, r"^[ -~]*$", name)
            if name != "href":
                self.assertNotRegex(value, r"://|script|url\(|refresh", name)
        self.assertEqual(len(page.ids), len(set(page.ids)))
        for link in page.links:
            self.assertEqual(link[0], "#")
            self.assertIn(link[1:], page.ids)
        self.assertTrue(page.pictures)
        for url in page.pictures:
            self.assertTrue(pixels(url))
        self.assertEqual(len(page.links) + len(page.pictures),
                         sum(name == "href" for name, _ in page.attributes))
        self.assertEqual(page.tags.count("title"), 1 + len(page.pictures))
        style = base64.b64encode(hashlib.sha256("".join(page.styles).encode()).digest()).decode()
        self.assertIn(f"style-src 'sha256-{style}'", page.policy)
        self.assertIn("default-src 'none'", page.policy)
        self.assertNotRegex("".join(page.styles), r"url\(|@import")
        self.assertNotRegex(data.decode("utf-8"), r"(?i)<script|<img|<b>")
        text = "".join(page.texts)
        self.assertIn("<script>document.title='x'</script>", text)
        self.assertIn("onerror=alert(1)>", text)
        self.assertNotRegex(text, "[\x00-\x08\x0b-\x1f\x7f]")
        for name in ("child", "backing-json", "note", "disk.vmdk"):
            self.assertIn(f"{store}/{name}", text)

    def test_pictures_show_the_worst_of_each_cell(self):
        store = self.folder / "store"
        store.mkdir()
        path = store / "disk"
        qemu_img("create", "-q", "-f", "qcow2", path, "64M")
        qemu_io(path, [f"write -P 7 {n * CLUSTER} {CLUSTER}" for n in range(16)])
        with open(path, "r+b") as file:
            file.seek(40)
            l1 = struct.unpack(">Q", file.read(8))[0]
            file.seek(l1)
            l2 = struct.unpack(">Q", file.read(8))[0] & ~(1 << 63)
            file.seek(l2 + 8 * 9)
            lost = struct.unpack(">Q", file.read(8))[0] & ~(1 << 63)
            file.seek(l2 + 8 * 9)
            file.write(bytes(8))
        out = self.folder / "page"
        imgtriage("--report", out, store)
        page = Page(out.read_text())
        unclaimed = int(page.texts[page.texts.index("unclaimed") + 1])
        self.assertIn(unclaimed - CLUSTER, range(CLUSTER))  # and what stands behind the L1 table
        of_file, of_disk = map(pixels, page.pictures)
        cell = 512  # the smallest: the file is small
        flat = [state for row in of_file for state in row]
        shown = {index * cell // CLUSTER for index, state in enumerate(flat) if state == LEAKED}
        self.assertEqual(shown, {lost // CLUSTER})
        disk = [state for row in of_disk for state in row]
        cell = (64 << 20) // len(disk)
        data = {index * cell // CLUSTER for index, state in enumerate(disk) if state == 5}
        self.assertEqual(data, set(range(16)) - {9})

    def test_the_database(self):
        store = self.store()
        out, _ = self.reports()
        db = sqlite3.connect(f"file:{out}/db?mode=ro", uri=True)
        db.text_factory = lambda raw: raw.decode("utf-8")
        self.assertEqual(db.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
        lines = [json.loads(line) for line in
                 (out / "json").read_text().splitlines()]
        rows = db.execute("SELECT file_id, path, verdict, format FROM file ORDER BY 1").fetchall()
        self.assertEqual(sorted((line["filename"], line["verdict"], line["format"])
                                for line in lines), sorted(row[1:] for row in rows))
        ids = {row[1]: row[0] for row in rows}
        for name in ("snapshots", "bitmaps", "rt-unaligned", "disk.vhd", "child"):
            alone = self.folder / "alone.db"
            imgdump("--db", alone, store / name, check=True)
            other = sqlite3.connect(alone)
            for table in ("field", "region", "mapping", "refcount", "snapshot", "bitmap"):
                columns = ",".join(row[1] for row in db.execute(f"PRAGMA table_info({table})")
                                   if row[1] != "image_id")
                query = f"SELECT {columns} FROM {table} WHERE image_id = ? ORDER BY {columns}"
                self.assertEqual(db.execute(query, (ids[f"{store}/{name}"],)).fetchall(),
                                 other.execute(query, (1,)).fetchall(), f"{name} {table}")
            other.close()
            alone.unlink()
        for line in lines:
            number = ids[line["filename"]]
            self.assertEqual(
                {(r["code"], r["weight"]) for r in line.get("reasons", ())},
                set(db.execute("SELECT code, weight FROM reason WHERE file_id = ?", (number,))))
            digest = db.execute("SELECT digest FROM hash WHERE file_id = ? AND algorithm = "
                                "'sha256' AND subject = 'container'", (number,)).fetchone()[0]
            self.assertEqual(digest, line["hashes"]["container"]["sha256"])
        chain = db.execute("SELECT p.path FROM chain c JOIN file f ON f.file_id = c.child_id JOIN "
                           "file p ON p.file_id = c.parent_id WHERE f.path = ?",
                           (f"{store}/child",)).fetchall()
        self.assertEqual(chain, [(f"{store}/plain",)])
        db.close()

    def test_a_crash_costs_the_database_one_model(self):
        store = self.folder / "store"
        store.mkdir()
        for name in ("bad", "good"):
            os.rename(self.sound(Recipe()), store / name)
        path = self.folder / "db"
        run("strace", "-f", "-qq", "-o", "/dev/null", "-P", store / "bad", "-e",
            "inject=pread64:signal=SIGKILL:when=15", BIN / "imgtriage", "--db", path, store,
            env={"ASAN_OPTIONS": "detect_leaks=0"})
        db = sqlite3.connect(path)
        self.assertEqual(db.execute("SELECT path, complete FROM file ORDER BY 1").fetchall(),
                         [(f"{store}/bad", 0), (f"{store}/good", 1)])
        self.assertEqual(db.execute("SELECT path FROM image").fetchall(), [(f"{store}/good",)])
        db.close()

    def test_dfxml(self):
        store = self.store()
        out, _ = self.reports()
        path = out / "dfxml"
        run("xmllint", "--noout", "--relaxng", SCHEMA, path, check=True)
        if "IMGFSCK_DFXML_XSD" in os.environ:  # the working group's own, where it is at hand
            run("xmllint", "--noout", "--schema", os.environ["IMGFSCK_DFXML_XSD"], path, check=True)
        text = path.read_text()
        for name in ("plain", "snapshots", "disk.vhd"):
            digest = hashlib.sha1((store / name).read_bytes()).hexdigest()
            self.assertRegex(text, re.compile(
                f"<filename>{store}/{name}</filename>.*?<hashdigest type=\"sha1\">{digest}<", re.S))
        self.assertIn(f"triage:bytes=\"{os.fsencode(store).hex()}", text)

    def test_times(self):
        store = self.store()
        out, _ = self.reports()
        lines = (out / "bodyfile").read_text().splitlines()
        fields = [line.split("|") for line in lines]
        self.assertEqual({len(field) for field in fields}, {11})
        plain = next(field for field in fields if field[1] == f"{store}/plain")
        info = os.stat(store / "plain")
        self.assertEqual(plain[0], hashlib.md5((store / "plain").read_bytes()).hexdigest())
        self.assertEqual((plain[2], plain[6], plain[8]),
                         (str(info.st_ino), str(info.st_size), str(int(info.st_mtime))))
        self.assertEqual(plain[3:6], ["r/" + stat.filemode(info.st_mode).replace("-", "r", 1),
                                      str(info.st_uid), str(info.st_gid)])
        table = run("mactime", "-d", "-z", "UTC", "-b", out / "bodyfile",
                    check=True).out
        self.assertIn("(snapshot <b>\\x1b]0;evil\\x07\\x7cx)", table)
        events = [json.loads(line) for line in
                  (out / "timesketch").read_text().splitlines()]
        for event in events:
            self.assertTrue({"message", "datetime", "timestamp_desc"} <= set(event))
            self.assertNotRegex(event["message"], "[\x00-\x1f\x7f]")
        self.assertEqual([event["timestamp"] for event in events],
                         sorted(event["timestamp"] for event in events))
        self.assertIn(info.st_mtime_ns // 1000, [
            event["timestamp"] for event in events if event["image_path"] == f"{store}/plain"])


class OnePage(ImageTest):
    """imgfsck --report"""

    def texts(self, page):
        parsed = Page(page.read_text())
        self.assertEqual(parsed.open, [])
        return parsed.texts

    def test_a_page_of_what_was_found(self):
        path = self.damaged("l2-copied-clear")[0]
        page, before = self.folder / "page", file_state(path)
        plain = imgfsck(path)
        done = imgfsck("--report", page, path)
        self.assertEqual((done.code, done.out), (plain.code, plain.out), done.err)
        self.assertEqual(file_state(path), before)
        texts = self.texts(page)
        self.assertIn(str(path), texts)
        self.assertIn("qcow2-l2-copied", "".join(texts))
        self.assertNotIn("What to look at first", texts)
        self.assertNotIn("The check found nothing.", texts)

    def test_a_page_of_what_is_left(self):
        path = self.damaged("l2-copied-clear")[0]
        page = self.folder / "page"
        self.assertEqual(imgfsck("--repair", "--no-undo", "--report", page, path).code, 1)
        self.assertIn("The check found nothing.", self.texts(page))

    def test_several_images_and_a_database(self):
        names = [self.folder / "one", self.folder / os.fsdecode(EVIL[:20])]
        for name in names:
            os.rename(self.sound(Recipe()), name)
        page, db = self.folder / "page", self.folder / "db"
        self.assertEqual(imgfsck("--report", page, "--db", db, *names).code, 0)
        texts = self.texts(page)
        self.assertIn("2 disk images", texts)
        self.assertIn("What to look at first", texts)
        self.assertNotRegex("".join(texts), "[\x00-\x08\x0b-\x1f\x7f]")
        connection = sqlite3.connect(f"file:{db}?mode=ro", uri=True)
        self.assertEqual(connection.execute("SELECT count(*) FROM image").fetchall(), [(2,)])
        connection.close()

    def test_nothing_is_overwritten_and_nothing_done_then(self):
        path = self.damaged("l2-copied-clear")[0]
        page, before = self.folder / "page", file_state(path)
        page.write_text("mine")
        done = imgfsck("--repair", "--report", page, path)
        self.assertEqual((done.code, done.out), (8, ""))
        self.assertIn("not overwritten", done.err)
        self.assertEqual((page.read_text(), file_state(path)), ("mine", before))
        self.assertEqual(imgfsck("--report", self.folder / "no" / "page", path).code & 8, 8)
        self.assertEqual(imgfsck("--report", self.folder / "other", self.folder).code, 8)
        self.assertEqual(imgfsck("--report", self.folder / "gone-page", self.folder / "gone").code, 8)


if __name__ == "__main__":
    main()
