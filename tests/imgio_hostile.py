#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every command of imgio on what is no image, or a damaged one, or names files it has no business to
name: an answer in time, within bounded memory and disk space, with an exit status of the contract and
a sentence, never a signal; what only reads writes nothing."""
import json
import os
import random
import shutil

from imglib import patient
from imglib.make import Recipe
from imglib.programs import BIN, LONG, SANITIZED, SECRET, ToolFailed, copy, folder_state, run
from imglib.qcow2 import HEADER
from imglib.testing import ImageTest, main, sample

MB = 1 << 20
BASES = [Recipe("plain"), Recipe("plain", "v2"), Recipe("plain", "v3", 512, 1), Recipe("snapshots"),
         Recipe("snapshots", "v2", 512), Recipe("zlib"), Recipe("zstd"),
         Recipe("extended-l2", "v3", 16384), Recipe("bitmaps", "v3", 512, 64), Recipe("backing"),
         Recipe("data-file")]
SECONDS = 15
ADDRESS_SPACE = 1 << 30  # bytes; the sanitizers reserve far more and are not held to it

READING = [["info", "I"], ["info", "--output=json", "I"], ["map", "I"], ["map", "--json", "I"],
           ["read", "I", "0", "70000", "--to", "O"], ["compare", "I", "I"],
           ["convert", "--force", "I", "O"], ["convert", "--force", "-O", "qcow2", "-c", "I", "O"],
           ["convert", "--force", "--salvage", "--lost-map", "M", "I", "O"],
           ["snapshot", "list", "I"], ["bitmap", "list", "I"],
           ["bitmap", "dump", "I", "first"], ["read", "--snapshot", "1", "I", "0", "512", "--to", "O"],
           ["create", "--force", "-f", "qcow2", "-b", "I", "O"]]
WRITING = [["write", "I", "1000", "--pattern", "7", "--length", "100000"],
           ["write", "-c", "I", "0", "--pattern", "7", "--length", "64K"],
           ["zero", "I", "5000", "200000"], ["discard", "I", "0", "300000"],
           ["resize", "I", "+1M"], ["resize", "--shrink", "I", "300K"],
           ["snapshot", "create", "I", "new"], ["snapshot", "apply", "I", "1"],
           ["snapshot", "delete", "I", "1"], ["bitmap", "add", "I", "new"],
           ["bitmap", "remove", "I", "first"], ["bitmap", "clear", "I", "first"],
           ["bitmap", "disable", "I", "first"], ["bitmap", "merge", "I", "first", "other"],
           ["commit", "I"], ["rebase", "-b", "", "I"], ["rebase", "-u", "-b", "x", "-F", "raw", "I"],
           ["convert", "-n", "I", "E"]]


def injure(path, chance, sound):
    """Damages the image one to four times; returns what was done. What does not fit is left out."""
    done = []
    for _ in range(chance.randint(1, 4)):
        name = chance.choice(sorted(patient.RECIPES))
        try:
            patient.apply(name, path, chance.getrandbits(32), sound)
            done.append(name)
        except (patient.Unfit, ToolFailed):  # the latter: a recipe that needs QEMU to open it
            continue
    return done


def bounded(*command, **more):
    limit = [] if SANITIZED else ["prlimit", f"--as={ADDRESS_SPACE}"]
    return run(*limit, *command, timeout=SECONDS * (6 if SANITIZED else 1), **more)


class Hostile(ImageTest):
    def imgio(self, words, path, allowed=(0, 8), options=(), seconds=SECONDS):
        names = {"I": path, "O": self.aside / "out", "M": self.aside / "map",
                 "E": self.aside / "existing.qcow2"}
        words = [str(names.get(word, word)) for word in words]
        done = bounded(BIN / "imgio", words[0], *options, *words[1:])
        text = f"{done.command}: exit {done.code}\n{done.out[-500:]}{done.err[-1500:]}"
        self.assertIn(done.code, allowed, text)
        if done.code == 8:
            self.assertTrue(done.err.strip(), f"{done.command}: not a word on stderr")
        return done

    def setUp(self):
        super().setUp()
        self.aside = self._root / "aside"
        shutil.rmtree(self.aside, ignore_errors=True)
        self.aside.mkdir()
        self.chance = random.Random(self.id())

    def some(self, commands, count):
        """A few of the commands, others for each image; all of them in a long run."""
        return commands if LONG else self.chance.sample(commands, min(count, len(commands)))

    def read_all(self, path):
        before = folder_state(self.folder)
        for words in self.some(READING, 5):
            self.imgio(words, path)
        self.assertEqual(folder_state(self.folder), before)

    def write_all(self, path, commands=None):
        """Each command on a copy of its own."""
        commands = self.some(commands or WRITING, 5)
        files = list(self.folder.iterdir())
        kept = {file: self.aside / f"kept-{file.name}" for file in files if file.is_file()}
        for file, place in kept.items():
            copy(file, place)
        for words in commands:
            for file, place in kept.items():
                copy(place, file)
            if "E" in words:
                run(BIN / "imgio", "create", "-q", "--force", "-f", "qcow2",
                    self.aside / "existing.qcow2", "64M", check=True)
            self.imgio(words, path)
            for file in self.folder.iterdir():
                grown = os.stat(file).st_blocks * 512 - (
                    os.stat(kept[file]).st_blocks * 512 if file in kept else 0)
                self.assertLess(grown, 64 * MB, f"{words} makes {file.name} so much larger")
        for file, place in kept.items():
            copy(place, file)

    def test_files_that_are_no_image(self):
        for name, data in (("empty", b""), ("one-byte", b"Q"), ("three-bytes", b"QFI"),
                           ("magic", b"QFI\xfb"), ("text", b"Dear reader.\n" * 700),
                           ("zeros", bytes(100000)), ("ones", b"\xff" * 100000)):
            with self.subTest(file=name):
                path = self.folder / name
                path.write_bytes(data)
                for words in self.some(READING + WRITING, 12):
                    self.imgio(words, path, (8,))
                    self.assertEqual(path.read_bytes(), data)

    def test_what_is_no_file(self):
        fifo = self.folder / "fifo"
        os.mkfifo(fifo)
        for path in (fifo, self.folder, "/dev/null", "/dev/zero", self.folder / "missing"):
            for words in self.some(READING + WRITING, 8):
                with self.subTest(path=path, words=words):
                    self.imgio(words, path, (8,))
                    self.imgio(words, path, (8, 16), ["-f", "raw"])
        sound = self.sound(Recipe())
        for target in (fifo, self.folder, "/dev/null", "/nowhere/out"):
            for words in (["convert", sound, target], ["convert", "--force", sound, target],
                          ["convert", "-n", sound, target], ["create", "-f", "qcow2", target, "1M"],
                          ["create", "--force", "-f", "qcow2", target, "1M"]):
                with self.subTest(target=target, words=words):
                    self.imgio(words, sound, (8,))

    def test_truncated_images(self):
        for recipe in (Recipe("snapshots"), Recipe("bitmaps"), Recipe("zlib", "v2", 512)):
            whole = self.sound(recipe)
            size = whole.stat().st_size
            edges = {4, 8, 71, 72, 103, 104, 112, 511, 512, 4095, 4096, 4097, size - 1}
            for length in sample(sorted(edges | {size * n // 23 for n in range(1, 23)}), 4, 1):
                with self.subTest(recipe=recipe, length=length):
                    path = self.folder / "short.qcow2"
                    os.truncate(shutil.copy(whole, path), length)
                    self.read_all(path)
                    self.write_all(path)
            self.fresh_folder()

    def test_every_header_field_at_its_limits(self):
        for recipe in (Recipe("snapshots"), Recipe("bitmaps", "v3", 512), Recipe("snapshots", "v2")):
            whole = self.sound(recipe).read_bytes()
            self.fresh_folder()
            limits = [(name, at, size, value) for name, (at, size) in HEADER.items()
                      for value in (0, 1, (1 << 8 * size - 1) - 1, (1 << 8 * size) - 1)
                      if recipe.compat == "v3" or at < 72]
            for name, at, size, value in sample(limits, 6, 2):
                with self.subTest(recipe=recipe, field=name, value=value):
                    path = self.folder / "field.qcow2"
                    path.write_bytes(whole[:at] + value.to_bytes(size, "big") + whole[at + size:])
                    self.read_all(path)
                    self.write_all(path)

    def test_damaged_images(self):
        for seed in sample(range(1000), 6, 2):
            self.fresh_folder()
            chance = random.Random(f"hostile {seed}")
            path = self.sound(chance.choice(BASES))
            kept = self.aside / "sound.qcow2"
            copy(path, kept)
            done = injure(path, chance, kept)
            with self.subTest(seed=seed, done=done):
                self.read_all(path)
                self.write_all(path)
                self.imgio(["read", "I", "0", "512", "--to", "O"], path, (0, 8), ["-f", "qcow2"])

    def test_other_formats(self):
        source = shutil.move(self.sound(Recipe("plain")), self.aside / "source.qcow2")
        for name in ("qcow", "vpc", "cow", "raw"):
            whole = self.aside / f"whole.{name}"
            run(BIN / "imgio", "convert", "-O", name, source, whole, check=True)
            chance = random.Random(name)
            size = whole.stat().st_size
            for number in range(100 if LONG else 2 if SANITIZED else 4):
                self.fresh_folder()
                path = self.folder / f"i.{name}"
                copy(whole, path)
                with open(path, "r+b") as file:
                    if number % 3 == 0:
                        file.truncate(chance.randrange(size))
                    for _ in range(number % 5):
                        file.seek(chance.choice((chance.randrange(64), chance.randrange(2048),
                                                 chance.randrange(size))))
                        file.write(chance.choice((b"\xff" * 8, bytes(8), chance.randbytes(4))))
                with self.subTest(format=name, number=number):
                    self.read_all(path)
                    self.write_all(path, [words for words in WRITING if words[0] in
                                          ("write", "zero", "discard", "resize", "commit")])

    def named(self, name, extra=("-F", "qcow2")):
        path = self.folder / "named.qcow2"
        run(BIN / "imgio", "create", "-q", "-u", "--force", "-f", "qcow2", "-b", name, *extra, path,
            "1M", check=True)
        return path

    def test_names_in_images(self):
        """Nothing but plain local files is opened, whatever the name looks like."""
        secret = self.aside / "secret.raw"
        secret.write_bytes(b"secret! " * 1000)
        os.mkfifo(self.aside / "fifo")
        for name in ('json:{"driver":"raw","file":{"driver":"file","filename":"%s"}}' % secret,
                     f"raw:{secret}", f"host_device:{secret}", f"fat:{self.aside}",
                     "nbd:localhost:1", "nbd://localhost/x", "ssh://localhost/x", "http://localhost/x",
                     f"blkdebug::{secret}", "/dev/zero", "/dev/null", "/dev/stdin", self.aside / "fifo",
                     self.aside, "/proc/self/environ", "/proc/kcore", "/sys/kernel/notes", "nowhere.qcow2", ".", "/"):
            with self.subTest(name=name):
                path = self.named(str(name), ("-F", "raw"))
                for words in self.some([["read", "I", "0", "100"], ["convert", "I", "O"],
                                        ["map", "I"], ["compare", "I", "I"], ["commit", "I"],
                                        ["rebase", "-b", "", "I"],
                                        ["write", "I", "0", "--pattern", "1", "--length", "1"]], 3):
                    done = self.imgio(words, path, (8,))
                    self.assertNotIn("secret!", done.out)
                # Looking at it opens nothing.
                self.assertIn(str(name)[:10], self.imgio(["info", "I"], path, (0,)).out)
        # This one is a plain local file, and QEMU would read it, too.
        self.assertIn("secret!", self.imgio(["read", "I", "0", "100"], self.named(f"file:{secret}", (
            "-F", "raw")), (0,)).out)
        sound = self.sound(Recipe())
        self.imgio(["rebase", "-b", "nbd://localhost/x", "-F", "raw", "I"], sound, (8,))
        self.imgio(["create", "-f", "qcow2", "-b", "nbd:x:1", "O"], sound, (8,))

    def test_no_chain(self):
        path = self.sound(Recipe("backing"))
        self.assertIn("backing file", self.imgio(["read", "I", "0", "10"], path, (8,),
                                                 ["--no-chain"]).err)
        self.imgio(["read", "I", "0", "10"], path, (0,))

    def test_chains_that_loop_or_have_no_end(self):
        for words in (["read", "I", "0", "10"], ["commit", "I"], ["convert", "I", "O"], ["map", "I"]):
            self.assertIn("tail", self.imgio(words, self.named("named.qcow2"), (8,)).err)
        a, b = self.folder / "a.qcow2", self.folder / "b.qcow2"
        for one, other in ((a, b), (b, a)):
            run(BIN / "imgio", "create", "-q", "-u", "-f", "qcow2", "-b", other.name, "-F", "qcow2",
                one, "1M", check=True)
        os.symlink("a.qcow2", self.folder / "c.qcow2")
        for path in (a, b, self.folder / "c.qcow2"):
            self.assertIn("tail", self.imgio(["read", "I", "0", "10"], path, (8,)).err)
        # What would make a loop is not done.
        run(BIN / "imgio", "rebase", "-u", "-b", "", a, check=True)
        before = a.read_bytes()
        self.assertIn("itself", self.imgio(["rebase", "-b", "b.qcow2", "-F", "qcow2", "I"], a, (8,)).err)
        self.assertIn("own", self.imgio(["create", "--force", "-f", "qcow2", "-b", "a.qcow2", "-F",
                                         "qcow2", "I"], a, (8,)).err)
        self.assertEqual(a.read_bytes(), before)
        # A thousand layers: the same image again and again, each naming the one before.
        link = self.named("100000.qcow2").read_bytes()
        for number in range(100001, 101001):
            name = f"{number - 1}.qcow2".encode()
            (self.folder / f"{number}.qcow2").write_bytes(link.replace(b"100000.qcow2", name))
        self.assertIn("too many", self.imgio(["read", "I", "0", "10"],
                                             self.folder / "101000.qcow2", (8,)).err)

    def test_a_source_is_never_its_own_target(self):
        path = self.sound(Recipe("backing"))
        before = folder_state(self.folder)
        os.symlink(path, self.aside / "alias")
        for target in (path, self.aside / "alias", str(path) + ".base"):
            for words in (["convert", "--force", "I", target],
                          ["convert", "-n", "I", target],
                          ["convert", "--force", "-O", "qcow2", "-c", "I", target]):
                self.assertIn("to be read", self.imgio(words, path, (8,)).err)
            for words in (["read", "I", "0", "512", "--to", target],
                          ["write", "I", "0", "--from", target],
                          ["convert", "--salvage", "--lost-map", target, "I", "O"]):
                self.assertIn("the image", self.imgio(words, path, (8,)).err.replace("two ", ""))
        twice = ["convert", "--force", "--salvage", "--lost-map", "O", "I", "O"]
        self.assertIn("two images", self.imgio(twice, path, (8,)).err)
        self.assertEqual(folder_state(self.folder), before)

    def test_force_keeps_the_old_file_until_the_new_one_is_there(self):
        path = self.sound(Recipe("zlib"))
        old = self.folder / "old.raw"
        old.write_bytes(b"precious")
        old.chmod(0o640)
        with open(path, "r+b") as file:  # the last quarter is gone: convert fails half way
            file.truncate(path.stat().st_size * 3 // 4)
        self.imgio(["convert", "--force", "I", old], path, (8,))
        self.imgio(["create", "--force", "-f", "qcow2", "-o", "cluster_size=3", old, "1M"], path, (8,))
        self.assertEqual(old.read_bytes(), b"precious")
        self.imgio(["create", "--force", "-f", "qcow2", old, "1M"], path, (0,))
        self.assertEqual(old.read_bytes()[:4], b"QFI\xfb")
        self.assertEqual(old.stat().st_mode & 0o777, 0o640)
        self.assertEqual({file.name for file in self.folder.iterdir()}, {"disk.qcow2", "old.raw"})

    def test_huge_disks(self):
        """Sizes at their limits cost neither memory nor time."""
        for size, options in (("2E", "cluster_size=2M"), ("63T", ""), ("64G", "cluster_size=512"),
                              ("1P", "extended_l2=on")):
            with self.subTest(size=size):
                path = self.aside / "huge.qcow2"
                self.imgio(["create", "--force", "-f", "qcow2", *(["-o", options] if options else []),
                            path, size], path, (0,))
                self.imgio(["map", "I"], path, (0,))
                self.imgio(["snapshot", "create", "I", "s"], path, (0,))
                end = json.loads(self.imgio(["info", "--output=json", "I"], path, (0,)).out)
                last = end["virtual-size"] - 512
                self.imgio(["write", "I", last, "--pattern", "9", "--length", "512"], path, (0,))
                self.imgio(["read", "I", last, "512", "--to", "O"], path, (0,))
                self.assertEqual((self.aside / "out").read_bytes(), b"\x09" * 512)
                self.imgio(["bitmap", "add", "-g", "64M", "I", "b"], path, (0, 8))
                self.imgio(["discard", "I", "0", last], path, (0,))
                self.imgio(["snapshot", "apply", "I", "s"], path, (0,))
        for size in ("16E", "99999999999999999999", "-1", "1.5.5G", ""):
            self.imgio(["create", "--force", "-f", "qcow2", self.aside / "no", size], "", (8, 16))
            self.assertFalse((self.aside / "no").exists())

    def test_wrong_keys(self):
        path = self.sound(Recipe("luks"))
        key = self.aside / "key"
        for text, status in ((SECRET, 0), (SECRET + "\n", 0), (SECRET + "\n\n", 8), ("wrong", 8),
                             ("", 8), ("x" * 70000, 8)):
            key.write_text(text)
            self.imgio(["read", "I", "0", "100"], path, (status,), ["--password-file", key])
        self.imgio(["read", "I", "0", "100"], path, (8,))
        for name in (self.aside, "/dev/zero", self.aside / "none"):
            self.imgio(["read", "I", "0", "100"], path, (8,), ["--password-file", name])
        # A header that asks for hours of work is refused, not obeyed.
        data = path.read_bytes()
        at = data.index(b"LUKS\xba\xbe")
        key.write_text(SECRET)
        for field in (at + 164, at + 212):
            hurt = self.folder / "slow.qcow2"
            hurt.write_bytes(data[:field] + b"\xff\xff\xff\xff" + data[field + 4:])
            self.imgio(["read", "I", "0", "100"], hurt, (8,), ["--password-file", key])


if __name__ == "__main__":
    main()
