# SPDX-License-Identifier: Apache-2.0
"""What holds for every repair of every image, whatever the damage."""
from imglib.claims import Claims
from imglib.programs import (check_json, file_state, folder_state, guest_digest, imgfsck,
                             qemu_check)
from imglib.qcow2 import Qcow2
from imglib.testing import ImageTest, summary

# QEMU shows these snapshots, cut short or misnamed, without a word. A repair brings back what was
# hidden, so that the snapshot (never the disk) reads otherwise.
RESTORING = {"snap-l1-short", "snap-l1-size-zero", "snap-l1-past-eof", "snap-entry-overrun"}


def snapshots_to_compare(base, damages):
    """The names of the snapshots in an image made as `base` that `safe` must leave as they read."""
    if base.content != "snapshots" or RESTORING & set(damages):
        return ()
    return ("second one", "third")


def guest_views(path, luks, snapshots):
    """What a guest reads of the disk and of each snapshot, as far as QEMU reads it."""
    views = {"active": guest_digest(path, luks)}
    for name in snapshots:
        views[name] = guest_digest(path, luks, name)
    return {name: digest for name, digest in views.items() if digest is not None}


def aliases(document):
    """Places that layers map at different addresses, by the warning."""
    return {f["host-offset"] for f in document["findings"]
            if f["code"] == "qcow2-cross-layer-alias" and f["severity"] == "warning"}


def one_a_layer(claims):
    return {c.kind for c in claims} == {"data"} and len({c.layer for c in claims}) == len(claims)


class RoundtripTest(ImageTest):
    on_disk = False

    def roundtrip(self, path, mode, options=(), luks=False, snapshots=(), guest_keeps=False,
                  for_qemu=True):
        """Repairs the image and takes the repair back. The folder holds what belongs to the image
        and nothing else. guest_keeps: the guest must not notice, even with mode `all`.
        for_qemu: QEMU can open the image once it is repaired."""
        repair = [*options, f"--repair={mode}"]
        before = folder_state(self.folder)
        views = guest_views(path, luks, snapshots) if mode == "safe" or guest_keeps else {}

        dry_code, dry = check_json(path, *repair, "--dry-run")
        self.assertEqual(folder_state(self.folder), before, "the dry run wrote something")
        self.assertIn(dry_code, (0, 4), summary(dry))

        code, document = check_json(path, *repair)
        self.assertIn(code, (0, 1, 4), summary(document))
        after = folder_state(self.folder)
        changed = after[path.name].digest != before[path.name].digest
        undo = path.with_name(path.name + ".imgfsck-undo")
        self.assertEqual(set(after) - set(before), {undo.name} if changed else set(),
                         "an undo record goes with a change")
        for file in set(before) - {path.name}:
            self.assertEqual(after[file], before[file], file)
        if code == 1:
            self.assertTrue(changed)
            self.assert_mended(path, options, luks, for_qemu, dry)
        now = guest_views(path, luks, views.keys() - {"active"})
        self.assertEqual({name: now.get(name) for name in views}, views,
                         "the guest reads other bytes")

        again, second = check_json(path, *repair)
        self.assertEqual(folder_state(self.folder), after, "the second repair wrote something")
        self.assertEqual(again, 4 if code == 4 else 0, summary(second))
        if changed:
            self.assert_rolled_back(path, undo, before[path.name])
        return code

    def assert_mended(self, path, options, luks, for_qemu, damaged):
        code, document = check_json(path, *options)
        self.assertEqual(code, 0, summary(document))
        # QEMU does not look at an image whose backing file it does not find.
        lost_name = any(f["code"] == "qcow2-backing-missing" for f in document["findings"])
        if for_qemu and not lost_name:
            qemu_code, qemu = qemu_check(path, luks)
            self.assertEqual(qemu_code, 0, qemu)
        with Qcow2(path) as image:
            claims = Claims(image)
            counts = claims.counts()
            self.assertEqual((counts.leaks, counts.low), ({}, {}))
            # Layers that map one cluster at different places: a warning that no repair takes away,
            # since either may be right.
            known = aliases(document) if aliases(damaged) else set()
            self.assertEqual([found for cluster, found in claims.double_owned().items()
                              if cluster * image.cluster_size not in known
                              or not one_a_layer(found)], [])

    def assert_rolled_back(self, path, undo, before):
        done = imgfsck("--rollback", undo, path)
        self.assertEqual(done.code, 0, done.err)
        state = file_state(path)
        self.assertEqual((state.digest, state.size), (before.digest, before.size))
