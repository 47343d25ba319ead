#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""imgtriage on a folder of images, sound, damaged and hostile ones, and of other files: what it
finds, what it says, and that it leaves everything as it was."""
import hashlib
import json
import os
import pathlib
import signal
import subprocess
import time

from imglib.make import Recipe
from imglib.programs import BIN, copy, folder_state, qemu_img, run
from imglib.testing import ImageTest, main

EVIL = b"\x1b[31m\n<script>alert(1)\xff.img"


def imgtriage(*options, **more):
    return run(BIN / "imgtriage", *options, **more)


def documents(done):
    return {line["filename"]: line for line in map(json.loads, done.out.splitlines())}


class Inventory(ImageTest):
    def store(self):
        """A folder of everything; the tool works beside it."""
        store = self.folder / "store"
        (store / "sub").mkdir(parents=True)
        os.rename(self.sound(Recipe("snapshots")), store / "disk.txt")
        qemu_img("create", "-q", "-f", "vpc", store / "disk.vhd", "8M")
        qemu_img("create", "-q", "-f", "vmdk", store / "other.vmdk", "8M")
        run("truncate", "-s", "8M", store / "sub" / "ext", check=True)
        run("mkfs.ext4", "-q", store / "sub" / "ext", check=True)
        (store / "note.qcow2").write_text("no image\n")
        (store / "empty.qcow2").write_bytes(b"")
        (store / "short").write_bytes(b"QFI\xfb\0\0\0\3")
        os.symlink("/etc", store / "sub" / "etc")
        os.symlink("disk.txt", store / "sub" / "link")
        os.mkfifo(store / "sub" / "fifo")
        os.link(store / "disk.txt", store / "sub" / "again")
        with open(os.path.join(os.fsencode(store), EVIL), "wb") as file:
            file.write((store / "disk.vhd").read_bytes())
        return store

    def test_finds_every_image_by_its_content(self):
        store = self.store()
        done = imgtriage("--json", "-", store)
        self.assertEqual(done.code, 4, done.err)
        lines = documents(done)
        name = str(store) + "/{}"
        formats = {path.removeprefix(str(store) + "/"): line["format"]
                   for path, line in lines.items()}
        evil = EVIL.decode("utf-8", "replace")
        self.assertEqual(formats, {
            "disk.txt": "qcow2", "disk.vhd": "vpc", "other.vmdk": "vmdk", "sub/ext": "raw",
            "note.qcow2": None, "empty.qcow2": None, "short": "qcow2", evil: "vpc"})
        disk = lines[name.format("disk.txt")]
        self.assertEqual(disk["also-named"], [name.format("sub/again")])
        self.assertEqual(disk["corruptions"], 0)
        self.assertEqual(len(disk["snapshots"]), 2)
        self.assertGreater(lines[name.format("short")]["corruptions"], 0)
        for once in ("note.qcow2", "empty.qcow2"):  # named so, and none inside
            self.assertEqual([r["code"] for r in lines[name.format(once)]["reasons"]],
                             ["named-image"])
        self.assertEqual(bytes.fromhex(lines[name.format(evil)]["filename-hex"]),
                         os.fsencode(store) + b"/" + EVIL)

    def test_text_is_harmless(self):
        done = imgtriage("-v", self.store())
        self.assertNotIn("\x1b", done.out)
        self.assertIn("\\x1b[31m\\x0a<script>", done.out)
        self.assertIn("8 files in 2 folders: 8 images", done.out)
        self.assertIn("left alone: 2 symbolic links, 1 special file", done.out)

    def test_writes_nothing_and_says_the_same_again(self):
        store = self.store()
        before = folder_state(store), folder_state(store / "sub")
        outputs = []
        for jobs in (1, 2, 7):
            report = self.folder / f"report{jobs}"
            done = imgtriage("-j", jobs, "--json", report, store)
            outputs.append((done.code, done.out, report.read_bytes()))
        self.assertEqual(outputs[0], outputs[1])
        self.assertEqual(outputs[0], outputs[2])
        self.assertEqual(before, (folder_state(store), folder_state(store / "sub")))

    def test_exit_statuses(self):
        store = self.folder / "store"
        store.mkdir()
        os.rename(self.sound(Recipe()), store / "disk")
        self.assertEqual(imgtriage(store).code, 0)
        self.assertEqual(imgtriage(store, self.folder / "none").code, 8)
        (store / "short").write_bytes(b"QFI\xfb\0\0\0\3")
        self.assertEqual(imgtriage(store).code, 4)
        self.assertEqual(imgtriage("--exit-zero", store).code, 0)
        self.assertEqual(imgtriage(store, self.folder / "none").code, 12)
        for usage in ((), ("--policy", "none", store), ("--max-memory", "1", store),
                      ("--json", store / "report", store), ("--no-such-option", store)):
            self.assertEqual(imgtriage(*usage).code, 16, usage)
        self.assertFalse((store / "report").exists())
        kept = self.folder / "kept"
        kept.write_text("mine")
        self.assertEqual(imgtriage("--json", kept, store).code, 8)
        self.assertEqual(kept.read_text(), "mine")


class Chains(ImageTest):
    def overlay(self, name, backing, backing_format="qcow2"):
        qemu_img("create", "-q", "-f", "qcow2", "-u", "-b", backing, "-F", backing_format,
                 self.folder / name, "1M")

    def test_files_are_linked(self):
        (self.folder / "moved").mkdir()
        for name in ("base", "moved/far"):
            qemu_img("create", "-q", "-f", "qcow2", self.folder / name, "1M")
        time.sleep(0.02)  # overlays are younger than what they are made from
        self.overlay("one", "base")
        self.overlay("two", str(self.folder / "base"))
        self.overlay("three", "two")
        self.overlay("away", "/var/lib/images/far")
        self.overlay("lost", "gone")
        self.overlay("net", "nbd://192.0.2.1/x")
        self.overlay("self", "self")
        self.overlay("left", "right")
        self.overlay("right", "left")
        self.overlay("wrong", "base", "raw")
        lines = {line["filename"].removeprefix(f"{self.folder}/"): line for line in
                 documents(imgtriage("--json", "-", self.folder)).values()}
        links = {name: line["links"][0] for name, line in lines.items() if line["links"]}
        self.assertEqual({name: (link["state"], link["troubles"])
                          for name, link in links.items()}, {
            "one": ("found", []), "two": ("found", []), "three": ("found", []),
            "away": ("found", ["moved"]), "lost": ("missing", []), "net": ("not-a-file", []),
            "self": ("found", ["cycle"]), "left": ("found", ["newer", "cycle"]),
            "right": ("found", ["cycle"]), "wrong": ("found", ["format-mismatch"])})
        self.assertEqual(links["away"]["file"], f"{self.folder}/moved/far")
        self.assertEqual(links["away"]["found-by"], "name")
        self.assertEqual(lines["base"]["used-by"],
                         [f"{self.folder}/{name}" for name in ("one", "two", "wrong")])
        for name in ("self", "left", "right"):
            self.assertIn("chain-cycle", [r["code"] for r in lines[name]["reasons"]])
        text = imgtriage(self.folder).out
        self.assertIn(f"chains:\n  {self.folder}/base\n    {self.folder}/one\n"
                      f"    {self.folder}/two\n      {self.folder}/three\n", text)


class Evidence(ImageTest):
    def store(self):
        store = self.folder / "store"
        store.mkdir()
        for name, content in (("zlib", "zlib"), ("bitmaps", "bitmaps"), ("plain", "plain")):
            os.rename(self.sound(Recipe(content)), store / name)
        qemu_img("create", "-q", "-f", "qcow2", "-b", "plain", "-F", "qcow2", store / "child")
        qemu_img("create", "-q", "-f", "qcow2", "-u", "-b", "gone", "-F", "qcow2", store / "lost",
                 "1M")
        (store / "note").write_text("no image")
        return store

    def test_hashes_of_files_and_of_disks(self):
        store = self.store()
        lines = documents(imgtriage("--hash", "md5,sha1,sha256,pieces", "--content", "--json", "-",
                                    store))
        for path, line in lines.items():
            with open(path, "rb") as file:
                data = file.read()
            for name in ("md5", "sha1", "sha256"):
                self.assertEqual(line["hashes"]["container"][name],
                                 hashlib.new(name, data).hexdigest(), path)
        for name in ("zlib", "bitmaps", "plain", "child"):
            raw = self.folder / "raw"
            qemu_img("convert", "-O", "raw", store / name, raw)
            content = lines[str(store / name)]["hashes"]["content"]
            self.assertEqual(content["sha256"], hashlib.sha256(raw.read_bytes()).hexdigest())
            self.assertEqual(content["unreadable"], [])
        lost = lines[str(store / "lost")]["hashes"]["content"]
        self.assertIn("not among the files examined", lost["trouble"])
        self.assertNotIn("sha256", lost)
        self.assertNotIn("content", lines[str(store / "note")]["hashes"])

    def test_a_vast_empty_disk_takes_no_time(self):
        """Its file is small, or takes no room; to hash its zeros one by one would take hours."""
        vast, raw = self.folder / "vast", self.folder / "raw"
        qemu_img("create", "-q", "-f", "qcow2", vast, "16T")
        run("truncate", "-s", "15T", raw, check=True)
        with open(raw, "r+b") as file:
            file.write(b"\0" * 446 + b"\x80\0\0\0\x83\0\0\0\0\x08\0\0\0\0\x10\0" + b"\0" * 48 +
                       b"\x55\xaa")
        done = imgtriage("--hash", "md5,sha256", "--content", "--entropy", "--verify-untouched",
                         "--report", self.folder.parent / "vast-page", "--json", "-", self.folder,
                         timeout=60)
        (self.folder.parent / "vast-page").unlink()
        lines = documents(done)
        for path, size in ((vast, 16 << 40), (raw, 15 << 40)):
            content = lines[str(path)]["hashes"]["content"]
            self.assertEqual((content["bytes"], "pieces" in content, "md5" in content),
                             (size, True, False))
            self.assertIn("hashed in pieces alone", content["trouble"])
            self.assertIs(lines[str(path)]["hashes"]["untouched"], True)
        container = lines[str(vast)]["hashes"]["container"]
        self.assertEqual(container["sha256"], hashlib.sha256(vast.read_bytes()).hexdigest())

    def test_what_changes_meanwhile_is_noticed(self):
        store = self.store()
        done = imgtriage("--verify-untouched", "--json", "-", store)
        for line in documents(done).values():
            self.assertIs(line["hashes"]["untouched"], True)
        # The file grows while it is being hashed.
        process = subprocess.Popen(
            ["strace", "-f", "-qq", "-o", "/dev/null", "-P", store / "plain", "-e",
             "inject=pread64:delay_enter=100ms", BIN / "imgtriage", "--verify-untouched",
             "--json", "-", store], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"})
        time.sleep(1)
        with open(store / "plain", "ab") as file:
            file.write(b"more")
        out, _ = process.communicate(timeout=120)
        plain = {line["filename"]: line for line in map(json.loads, out.splitlines())}[
            str(store / "plain")]
        self.assertIn("changed", [reason["code"] for reason in plain["reasons"]])
        self.assertNotEqual(plain["verdict"], "safe")

    def test_the_custody_log_tells_all_and_cannot_be_changed(self):
        store, log = self.store(), self.folder / "log"
        for number in range(2):
            done = imgtriage("--hash", "sha256", "--custody-log", log, "--json",
                             self.folder / f"report{number}", store)
            self.assertEqual(done.code, 4, done.err)
        records = [json.loads(line) for line in log.read_text().splitlines()]
        self.assertEqual([record["event"] for record in records],
                         2 * (["start"] + 6 * ["examined"] + ["wrote", "end"]))
        self.assertEqual(records[0]["command-line"][:2], ["--hash", "sha256"])
        report = next(record for record in records if record["event"] == "wrote")
        self.assertEqual(report["sha256"], hashlib.sha256(
            (self.folder / "report0").read_bytes()).hexdigest())
        self.assertEqual(imgtriage("--verify-log", log).code, 0)
        log.write_bytes(log.read_bytes().replace(b"sha256", b"sha255", 1))
        broken = imgtriage("--verify-log", log)
        self.assertEqual(broken.code, 4)
        self.assertIn("BROKEN at record 2", broken.out)
        self.assertEqual(imgtriage("--custody-log", log, store).code, 8)
        self.assertEqual(imgtriage("--custody-log", store / "log", store).code, 16)
        self.assertEqual(imgtriage("--verify-log", self.folder / "none").code, 8)

    def test_times_of_access_stay(self):
        store = self.store()
        for path in store.iterdir():
            os.utime(path, (1, 2))
        imgtriage("--hash", "md5", "--content", "--verify-untouched", store)
        for path in store.iterdir():
            self.assertEqual(os.stat(path).st_atime, 1, path)


class Workers(ImageTest):
    """strace plays the crash and the hang, in the worker that reads the image `bad`."""

    def store(self):
        os.rename(self.sound(Recipe()), self.folder / "good")
        os.rename(self.sound(Recipe()), self.folder / "bad")

    def command(self, injected, *options):
        return ["strace", "-f", "-qq", "-o", "/dev/null", "-P", self.folder / "bad", "-e",
                f"inject=pread64:{injected}", BIN / "imgtriage", "-j", "2", "--json", "-",
                *options, self.folder]

    def reasons(self, injected, *options):
        """code -> reasons of the bad image; the good one is examined in any case."""
        self.store()
        done = run(*self.command(injected, *options), env={"ASAN_OPTIONS": "detect_leaks=0"})
        self.assertEqual(done.code, 4, done.err)
        lines = {line["filename"].split("/")[-1]: line for line in
                 map(json.loads, done.out.splitlines())}
        self.assertEqual(lines["good"]["verdict"], "safe")
        self.assertNotEqual(lines["bad"]["verdict"], "safe")
        return {reason["code"]: reason for reason in lines["bad"]["reasons"]}

    def test_a_crash_is_a_finding(self):
        reasons = self.reasons("signal=SIGKILL:when=15")
        self.assertEqual(list(reasons), ["worker-crashed"])
        self.assertIn("signal 9", reasons["worker-crashed"]["detail"])

    def test_a_hang_is_a_finding(self):
        self.assertEqual(list(self.reasons("delay_enter=5s", "--max-time", "1")), ["worker-time"])

    def test_what_cannot_be_read_is_a_finding(self):
        self.assertIn("unreadable", self.reasons("error=EIO:when=15+"))

    def test_a_signal_ends_it_all(self):
        image = self.sound(Recipe())
        for number in range(400):
            copy(image, self.folder / f"copy{number}")
        with subprocess.Popen([BIN / "imgtriage", "--jobs", "1", "--json", "-", self.folder],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE) as tool:
            workers = pathlib.Path(f"/proc/{tool.pid}/task/{tool.pid}/children")
            deadline = time.monotonic() + 60
            while not workers.read_text():  # an error once the program has ended
                self.assertLess(time.monotonic(), deadline)
            tool.send_signal(signal.SIGTERM)
            out, _ = tool.communicate(timeout=60)
        self.assertEqual(tool.returncode, 32)
        self.assertEqual(out, b"")


if __name__ == "__main__":
    main()
