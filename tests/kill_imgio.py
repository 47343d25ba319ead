#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""imgio killed at every system call that changes the disk. A commit, a rebase, a snapshot, a bitmap
and a resize leave every byte that the guest reads as it was, whenever they are killed; a write leaves
old or new bytes where it wrote and old ones elsewhere. The image opens, a check finds no damage but
what may_be_left() names, and the same command then does its work."""
import os
import random

from imglib.programs import BIN, LONG, SANITIZED, check_json, imgfsck, imgio
from imglib.testing import ImageTest, main, summary
from imglib.traced import counts, traced

SIZE = 1 << 20
AT, LENGTH = 300000, 150000  # of a write
STAMP = 1600000000
FORMATS = {  # of overlay and base
    "cow": ("cow", "raw"), "qcow": ("qcow", "raw"), "qcow2": ("qcow2", "qcow2"),
    "qcow2-vpc": ("qcow2", "vpc"), "vpc": ("vpc", "vpc"),
}


def may_be_left(finding):
    """What no order of writes can do without: two places that change together. A cluster nobody
    shares may still look shared, never the reverse; one of two footers is the older one."""
    if finding["code"] in ("qcow2-l1-copied", "qcow2-l2-copied"):
        return ": clear" in finding["message"]
    return finding["code"] == "vhd-footer-copy-mismatch"


class KillImgio(ImageTest):
    on_disk = False

    def make(self, formats):
        """(overlay, base): 1 MiB of noise, over it another image with some noise of its own."""
        self.fresh_folder()
        top, base = formats
        rng = random.Random(f"kill {formats}")
        noise = self.folder / "noise"
        noise.write_bytes(rng.randbytes(SIZE))
        lower, upper = self.folder / "base", self.folder / "top"
        if base == "raw":
            lower.write_bytes(noise.read_bytes())
        else:
            imgio("create", "-q", "-f", base, lower, SIZE)
            imgio("write", lower, 0, "--from", noise)
        os.utime(lower, (STAMP, STAMP))
        imgio("create", "-q", "-f", top, "-o", f"backing_file={lower},backing_fmt={base}", upper)
        for _ in range(6):
            noise.write_bytes(rng.randbytes(rng.randrange(1, 60000)))
            imgio("write", upper, rng.randrange(SIZE - 60000), "--from", noise)
        noise.write_bytes(rng.randbytes(LENGTH))
        return upper, lower

    def guest(self, path):
        raw = self.folder / "guest.raw"
        imgio("convert", "--force", path, raw)
        return raw.read_bytes()

    def numbers(self, count):
        step = 1 if LONG else max(1, count // 2)
        return range(1, count + 1, step)

    def every_kill(self, formats, words, judge, again=True):
        """Kills `imgio WORDS` at each of its calls; `judge(overlay, base)` looks at what is left."""
        log = self.folder / "trace"
        upper, _ = self.make(formats)
        done = traced(log, BIN / "imgio", *words(upper))
        self.assertEqual(done.code, 0, done.err)
        found = counts(log)
        self.assertGreater(sum(found.values()), 2)
        for call, count in found.items():
            for number in self.numbers(count):
                with self.subTest(formats=formats, command=words("top")[0], call=call, number=number):
                    upper, base = self.make(formats)
                    disk = self.guest(upper)
                    done = traced(log, BIN / "imgio", *words(upper),
                                  inject=f"{call}:signal=KILL:when={number}")
                    self.assertIn(done.code, (-9, 137), done.out + done.err)
                    judge(disk, self.guest(upper))
                    for path in (upper, base):
                        _, document = check_json(path)
                        bad = [f for f in document["findings"]
                               if f["severity"] == "corruption" and not may_be_left(f)]
                        self.assertEqual(bad, [], f"{path.name}: {summary(document)}")
                        if document["corruptions"]:
                            imgfsck("--repair=all", path)
                            _, document = check_json(path)
                            self.assertEqual(document["corruptions"], 0, summary(document))
                    judge(disk, self.guest(upper))
                    if again:  # a name may be taken by now
                        imgio(*words(upper))
                        judge(disk, self.guest(upper))

    def kept(self, before, after):
        self.assertTrue(before == after, "the guest reads other bytes")

    def test_commit(self):
        for name in ("cow", "qcow", "qcow2", "qcow2-vpc") if LONG else ("cow", "qcow2"):
            self.every_kill(FORMATS[name], lambda path: ["commit", path], self.kept)

    def test_rebase(self):
        for name in ("cow", "qcow", "qcow2"):
            self.every_kill(FORMATS[name], self.rebase, self.kept)

    def rebase(self, path):
        other = self.folder / "other"
        other.write_bytes(random.Random(9).randbytes(SIZE))
        return ["rebase", "-b", other, "-F", "raw", path]

    def test_resize(self):
        for name in ("qcow2", "vpc"):
            top = FORMATS[name][0]
            self.every_kill((top, "vpc" if top == "vpc" else "raw"),
                            lambda path: ["resize", path, 3 * SIZE],
                            lambda before, after: self.kept(before, after[:len(before)]))

    def test_write(self):
        def judge(before, after):
            self.assertTrue(before[:AT] == after[:AT])
            self.assertTrue(before[AT + LENGTH:] == after[AT + LENGTH:])
            new = (self.folder / "noise").read_bytes()
            for at in range(0, LENGTH, 512):  # sector by sector
                begin, end = (AT + at) // 512 * 512, (AT + at) // 512 * 512 + 512
                begin, end = max(begin, AT), min(end, AT + LENGTH)
                self.assertIn(after[begin:end], (before[begin:end], new[begin - AT:end - AT]))

        for name in ("cow", "qcow", "qcow2", "vpc"):
            self.every_kill(FORMATS[name], lambda path: [
                "write", path, AT, "--from", self.folder / "noise"], judge)

    def test_snapshots_and_bitmaps(self):
        for words in (["snapshot", "create", "S"], ["bitmap", "add", "B"]):
            self.every_kill(("qcow2", "qcow2"), lambda path, w=words: [*w[:2], path, w[2]],
                            self.kept, again=False)


if __name__ == "__main__":
    main()
