#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every string that an image can carry holds a terminal's language, HTML, quotes and bytes that are no
UTF-8: names of snapshots, bitmaps, backing files, parents, features and creators. Whatever the four
tools print or write about such images, none of it gets out: text has no control byte, pages have no
tag of the image's, JSON, XML and SQL say what they would say of any other name."""
import json
import sqlite3
import struct
from xml.etree import ElementTree

from imglib.fixtures import Bases, all_fixtures
from imglib.fixtures_cow import BASE
from imglib.patient import Patient
from imglib.programs import BIN, qemu_img, run
from imglib.testing import ImageTest, main
from imglib.vhd import footer_of, header_of

EVIL = b"\x1b]0;own\x07\x1b[2J<script>alert(1)</script>'\"\\\xff"
CONTROL = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
PRINTED = (("imgfsck",), ("imgfsck", "--deep", "-v"), ("imgfsck", "--repair=all", "--dry-run"),
           ("imgfsck", "--chain"), ("imgdump",), ("imgdump", "--map"),
           ("imgdump", "--query", "SELECT * FROM field"), ("imgdump", "--query", "SELECT * FROM link"),
           ("imgdump", "--query", "SELECT * FROM snapshot"), ("imgio", "info"), ("imgio", "map"),
           ("imgio", "snapshot", "list"), ("imgio", "bitmap", "list"), ("imgtriage",),
           ("imgtriage", "-v"))
JSON = (("imgfsck", "--json"), ("imgfsck", "--repair=all", "--dry-run", "--json"), ("imgdump", "--json"),
        ("imgio", "info", "--output=json"), ("imgtriage", "--json", "-"))
FILES = (("imgfsck", "--report"), ("imgfsck", "--db"), ("imgdump", "--db"), ("imgtriage", "--report"),
         ("imgtriage", "--dfxml"), ("imgtriage", "--bodyfile"), ("imgtriage", "--timesketch"),
         ("imgtriage", "--db"))


def swap(path, old, new):
    data = path.read_bytes()
    assert old in data
    new = new[:len(old)]
    path.write_bytes(data.replace(old, new + old[len(new):]))


class HostileNames(ImageTest):
    on_disk = False

    def qcow2_header(self, fixtures):
        path = self.folder / "disk.qcow2"
        qemu_img("create", "-q", "-u", "-f", "qcow2", "-b", "/none", "-F", "raw", path, "1M")
        image = Patient(path)
        feature = b"\x00\x3d" + EVIL[:46].ljust(46, b"\0")
        image.set_extensions([(0xE2792ACA, EVIL[:15]), (0x6803F857, feature), (0x12345678, EVIL)],
                             backing_name=b"/no/" + EVIL)
        image.close()
        return path

    def qcow2_names(self, fixtures):
        path = self.folder / "disk.qcow2"
        qemu_img("create", "-q", "-f", "qcow2", path, "1M")
        qemu_img("snapshot", "-c", "x" * 60, path)
        qemu_img("bitmap", "--add", path, "y" * 60)
        swap(path, b"1" + b"x" * 60, b"\x9b" + EVIL)
        swap(path, b"y" * 60, EVIL)
        return path

    def qcow2_data_file(self, fixtures):
        path = self.folder / "disk.qcow2"
        qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={self.folder / ('x' * 60)}", path, "1M")
        swap(path, b"x" * 60, EVIL)
        return path

    def qcow1(self, fixtures):
        path = self.folder / "disk.qcow"
        qemu_img("create", "-q", "-u", "-f", "qcow", "-b", "x" * 60, "-F", "raw", path, "1M")
        swap(path, b"x" * 60, EVIL)
        return path

    def cow(self, fixtures):
        fixtures["cow/sound"].build(self.folder)
        path = self.folder / fixtures["cow/sound"].file
        data = bytearray(path.read_bytes())
        at = data.index(BASE.encode())
        data[at:at + len(EVIL)] = EVIL
        path.write_bytes(data)
        return path

    def vhd(self, fixtures):
        fixtures["vhd/parent-gone"].build(self.folder)
        path = self.folder / fixtures["vhd/parent-gone"].file
        text = EVIL[:-1].decode() + "\u202e"
        data = bytearray(path.read_bytes())
        for order in ("utf-16-le", "utf-16-be"):  # the locators, before the header's own
            name = "base.vhd".encode(order)
            for at in [at for at in range(1536, len(data) - len(name)) if data.startswith(name, at)]:
                data[at:at + len(name)] = text.encode(order)[:len(name)]
        data[512 + 64:512 + 576] = text.encode("utf-16-be").ljust(512, b"\0")
        data[512:1536] = header_of(bytes(data[512:1536])).pack()
        for at in (0, len(data) - 512):
            data[at + 28:at + 32] = b"\x1b[2J"
            data[at + 36:at + 40] = b"\x9b<b>"
            data[at:at + 512] = footer_of(bytes(data[at:at + 512])).pack()
        path.write_bytes(data)
        return path

    def harmless(self, text):
        self.assertNotRegex(text, CONTROL)

    def ask(self, words, path):
        done = run(BIN / words[0], *words[1:], path)
        self.assertIn(done.code, (0, 1, 4, 8), done.err)
        self.harmless(done.err)
        return done

    def parsed(self, words, text):
        """Every byte that is no character became one that says so; JSON escapes the others."""
        self.harmless(text)
        for line in text.splitlines() if words[0] == "imgtriage" else [text]:
            json.loads(line)

    def written(self, option, target):
        if not target.exists():
            return
        if option == "--db":
            rows = sqlite3.connect(target).execute("SELECT name, value FROM field").fetchall()
            self.assertTrue(rows)
            return
        text = target.read_text("utf-8")
        self.harmless(text)
        if option == "--report":
            self.assertNotRegex(text, r"(?i)<script>alert|<b>")
        if option == "--dfxml":
            ElementTree.fromstring(text)
        if option == "--timesketch":
            for line in text.splitlines():
                json.loads(line)

    def dumped(self, path):
        text = self.ask(("imgdump", "--sql"), path).out
        self.harmless(text)
        store = sqlite3.connect(":memory:")
        store.executescript(text)
        self.assertTrue(store.execute("SELECT count(*) FROM field").fetchone()[0])

    def test_nothing_gets_out(self):
        fixtures = all_fixtures(Bases(self._root))
        aside = self._root / "aside"
        aside.mkdir()
        shown = 0
        for make in (self.qcow2_header, self.qcow2_names, self.qcow2_data_file, self.qcow1, self.cow,
                     self.vhd):
            self.fresh_folder()
            path = make(fixtures)
            for words in (*PRINTED, *JSON, *FILES):
                with self.subTest(image=make.__name__, words=words):
                    if words in FILES:
                        target = aside / f"{words[0]}{words[1]}"
                        target.unlink(missing_ok=True)
                        self.ask((*words, target), path)
                        self.written(words[1], target)
                        continue
                    done = self.ask(words, path)
                    self.harmless(done.out)
                    shown += "script" in done.out
                    if words in JSON and done.code != 8:
                        self.parsed(words, done.out)
            with self.subTest(image=make.__name__, words="--sql"):
                self.dumped(path)
        self.assertGreater(shown, 20)


if __name__ == "__main__":
    main()
