# SPDX-License-Identifier: Apache-2.0
"""What check and repairs of any damaged image are held to, for formats that QEMU does not check."""
from imglib.programs import BIN, check_json, folder_state, imgfsck, run
from imglib.testing import ImageTest, summary


def guest_bytes(path, options=()):
    """(disk, [(offset, length) that cannot be read]) by imgio; None when it does not open."""
    raw = path.parent.parent / "guest.raw"
    done = run(BIN / "imgio", "convert", "--force", "--salvage", *options, path, raw)
    if done.code not in (0, 4):
        return None
    lost = [tuple(map(int, line.split()[1:])) for line in done.out.splitlines()
            if line.startswith("lost ")]
    return bytearray(raw.read_bytes()), lost


def readable_equal(before, after):
    """Where the first could be read, the second is the same."""
    disk, lost = bytearray(before[0]), bytearray(after[0])
    for offset, length in before[1]:
        disk[offset:offset + length] = lost[offset:offset + length]
    return disk == lost and all(
        any(o <= offset and offset + length <= o + size for o, size in before[1])
        for offset, length in after[1])


class DamageTrial(ImageTest):
    """The folder holds the image and what it builds on. `contents`: what was stored for the guest,
    (place, bytes); `owned_twice`: path -> what shares bytes; `other_view`: path -> the disk as
    another program reads it, None when it does not open it or cannot read all."""

    def trial(self, path, form, contents, owned_twice, options=(), key=(), other_view=None):
        damaged = path.read_bytes()
        # What the damage left of the guest's bytes.
        contents = [piece for at, piece in contents if damaged[at:at + len(piece)] == piece]
        before = folder_state(self.folder)
        code, document = check_json(path, "--format", form, *options, timeout=60)
        self.assertIn(code, (0, 4), summary(document))
        self.assertEqual(folder_state(self.folder), before, "the check wrote something")
        # A damaged header may claim more than anybody wants to read.
        small = document["virtual-size"] < 1 << 30
        ours = guest_bytes(path, ["-f", form, *key]) if small else None
        theirs = other_view(path) if other_view and small else None
        codes = []
        for mode in ("safe", "all"):
            with self.subTest(mode=mode):
                codes.append(self.one(path, form, mode, (damaged, contents, owned_twice),
                                      options, key, (ours, theirs, other_view)))
        return codes

    def one(self, path, form, mode, known, options, key, views):
        damaged, contents, owned_twice = known
        before = folder_state(self.folder)
        ours, theirs, other_view = views
        repair = ["--format", form, *options, f"--repair={mode}"]
        dry, document = check_json(path, *repair, "--dry-run", timeout=60)
        self.assertIn(dry, (0, 4), summary(document))
        self.assertEqual(folder_state(self.folder), before, "the dry run wrote something")
        code, document = check_json(path, *repair, timeout=60)
        self.assertIn(code, (0, 1, 4), summary(document))
        after = folder_state(self.folder)
        for name in set(before) - {path.name}:
            self.assertEqual(after[name], before[name], name)
        mended = path.read_bytes()
        gone = [piece for piece in contents if piece not in mended]
        self.assertEqual(len(gone), 0, "data of the guest is nowhere in the file")
        small = document["virtual-size"] < 1 << 30
        now = guest_bytes(path, ["-f", form, *key]) if small else None
        if mode == "safe" and ours and small:
            self.assertTrue(now and readable_equal(ours, now), "the guest reads other bytes")
        if mode == "safe" and theirs and small:
            self.assertTrue(other_view(path) == theirs, "another program reads other bytes")
        if code == 1:
            # A name of a file that is not there is a warning: the file may be elsewhere. What
            # looks random is taken for encrypted, and then asks for a passphrase.
            linked = not any(f["code"].endswith(("backing-missing", "qcow-crypt"))
                             for f in document["findings"])
            again, second = check_json(path, "--format", form, *options)
            self.assertEqual(again, 0, summary(second))
            self.assertEqual(owned_twice(path), [])
            self.assertTrue(not small or not linked or now and not now[1],
                            "sound, and yet unreadable")
            view = other_view(path) if now and other_view and small else None
            # The other program may drop the part of a sector at the end.
            self.assertTrue(view is None or len(now[0]) - len(view) < 512 and
                            now[0].startswith(view), "another program reads other bytes")
        again, document = check_json(path, *repair, timeout=60)
        self.assertEqual(folder_state(self.folder), after, "the second repair wrote something")
        self.assertEqual(again, 4 if code == 4 else 0, summary(document))
        undo = path.with_name(path.name + ".imgfsck-undo")
        self.assertEqual(undo.exists(), mended != damaged)
        if undo.exists():
            done = imgfsck("--rollback", undo, path)
            self.assertEqual(done.code, 0, done.err)
            undo.unlink()
        self.assertTrue(path.read_bytes() == damaged, "rolled back to something else")
        return code
