#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Lost mappings come back under `all`: the guest's bytes after a repair are compared with those
before the damage. What cannot be known is not guessed: then the clusters are in lost+found. `safe`
never changes what the guest reads, and a second repair finds nothing to do."""
import random

from imglib.programs import LONG, check_json, digest, qemu_img, qemu_io
from imglib.qcow2 import Qcow2
from imglib.testing import ImageTest, codes, main

CLUSTER, SIZE = 4096, 8 << 20
COUNT, ENTRIES = SIZE // CLUSTER, CLUSTER // 8
MASK = 0x00FFFFFFFFFFFE00


class Layout:
    """How the guest clusters were filled: in guest order or not, all of them or some."""
    def __init__(self, name, fill=1.0, permuted=False, snapshot=False):
        self.name, self.fill, self.permuted, self.snapshot = name, fill, permuted, snapshot


FULL, SPARSE = Layout("full"), Layout("sparse", fill=0.7)
PERMUTED = Layout("permuted", fill=0.7, permuted=True)
SNAPSHOT = Layout("snapshot", snapshot=True)
SHUFFLED = Layout("shuffled snapshot", fill=0.7, permuted=True, snapshot=True)
LAYOUTS = (FULL, SPARSE, PERMUTED, SNAPSHOT, SHUFFLED)


def fill(path, layout):
    chance = random.Random(11)
    clusters = [c for c in range(COUNT) if chance.random() < layout.fill]
    if layout.permuted:
        chance.shuffle(clusters)
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"cluster_size={CLUSTER}", path, str(SIZE))
    write(path, clusters, 1)
    if layout.snapshot:
        qemu_img("snapshot", "-c", "before", path)
        write(path, [c for c in clusters if chance.random() < 0.2], 2)
    mark_clusters(path)


def write(path, clusters, pattern):
    for begin in range(0, len(clusters), 500):
        qemu_io(path, [f"write -q -P {pattern} {c * CLUSTER} {CLUSTER}"
                       for c in clusters[begin:begin + 500]])


def mark_clusters(path):
    """Makes the content of every data cluster unique, so that none is a copy of another."""
    with Qcow2(path) as image:
        hosts = {host for layer, _, _ in image.layers() for slot in image.slots(layer)
                 if (host := image.host(slot))}
    with open(path, "r+b") as file:
        for host in hosts:
            file.seek(host)
            file.write(b"#%015d" % host)


class Tables:
    """The tables of an image as bytes to be damaged."""
    def __init__(self, path, chance):
        self.path, self.chance = path, chance
        self.bytes = bytearray(path.read_bytes())
        self.l1 = self.get(40)
        self.tables = [self.get(self.l1 + 8 * i) & MASK for i in range(COUNT // ENTRIES)]

    def get(self, offset):
        return int.from_bytes(self.bytes[offset:offset + 8], "big")

    def put(self, offset, value):
        self.bytes[offset:offset + 8] = value.to_bytes(8, "big")

    def table(self):
        return self.chance.choice(self.tables)

    def overwrite(self, offset, content):
        self.bytes[offset:offset + len(content)] = content

    def slot(self):
        """The place of a random entry that maps a cluster between two that are mapped too."""
        while True:
            index = self.chance.randrange(1, ENTRIES - 1)
            place = self.table() + 8 * index
            if all(self.get(place + step) & MASK for step in (-8, 0, 8)):
                return place

    def l1_slot(self):
        return self.l1 + 8 * self.chance.randrange(len(self.tables))

    def save(self):
        self.path.write_bytes(self.bytes)


def table_zeroed(t):
    t.overwrite(t.table(), bytes(CLUSTER))


def table_of_counts(t):
    t.overwrite(t.table(), b"\0\1" * (CLUSTER // 2))


def table_of_text(t):
    t.overwrite(t.table(), (b"guest text, no table " * CLUSTER)[:CLUSTER])


def half_table_of_text(t):
    t.overwrite(t.table(), (b"guest text, no table " * CLUSTER)[:CLUSTER // 2])


def table_zeroed_older_copy(t):
    table = t.table()
    copy = bytes(t.bytes[table:table + CLUSTER])
    end = -(-len(t.bytes) // CLUSTER) * CLUSTER
    t.bytes += bytes(end - len(t.bytes)) + bytes(CLUSTER) + copy
    t.overwrite(table, bytes(CLUSTER))


def l1_entry_zeroed(t):
    t.put(t.l1_slot(), 0)


def l1_entry_past_end(t):
    place = t.l1_slot()
    t.put(place, t.get(place) | 1 << 45)


def l1_entry_of_another(t):
    a, b = t.chance.sample(range(len(t.tables)), 2)
    t.put(t.l1 + 8 * a, t.get(t.l1 + 8 * b))


def entry_zeroed(t):
    t.put(t.slot(), 0)


def entry_past_end(t):
    place = t.slot()
    t.put(place, t.get(place) | 1 << 46)


def entry_of_another(t):
    t.put(t.slot(), t.get(t.slot()))


def entry_on_metadata(t):
    t.put(t.slot(), t.get(48) | 1 << 63)


def entries_of_text(t):
    """Over the ends of two entries: the zero flag of the first is set by it, too."""
    place = t.slot()
    t.overwrite(place + 3, b"Hello, Disk!")


EVERYWHERE = {entry_past_end: LAYOUTS, entry_on_metadata: LAYOUTS, l1_entry_past_end: LAYOUTS,
              table_zeroed_older_copy: LAYOUTS, l1_entry_zeroed: LAYOUTS}
# What can be put back entirely, and where.
RESTORED = {**EVERYWHERE,
            table_zeroed: (FULL, SNAPSHOT), table_of_counts: (FULL, SNAPSHOT),
            table_of_text: (FULL, SNAPSHOT), half_table_of_text: (FULL, SNAPSHOT),
            l1_entry_of_another: (FULL, SPARSE, SNAPSHOT),
            entries_of_text: (FULL, SNAPSHOT),
            entry_of_another: (FULL, SPARSE), entry_zeroed: (FULL, SPARSE)}

# What `safe` mends by a copy for each; then nobody can tell any more whose the bytes were.
SHARING = (entry_of_another, l1_entry_of_another, entry_on_metadata)


class Relink(ImageTest):
    def test_what_can_be_known_comes_back(self):
        for turn, layout in enumerate(LAYOUTS):
            base = self._root / f"{layout.name}.qcow2"
            fill(base, layout)
            sound = self.view(base, "sound.raw")
            for number, (damage, restored) in enumerate(RESTORED.items()):
                if not LONG and (number + turn) % 2 == 1:
                    continue  # another layout's turn
                # `safe` is tried with every damage and with every layout, but not with all pairs.
                for mode in ("safe", "all")[0 if (number + turn) % 6 == 0 or LONG else 1:]:
                    with self.subTest(layout=layout.name, damage=damage.__name__, mode=mode):
                        self.try_one(base, sound, damage, number, mode, layout in restored)

    def view(self, image, name, snapshot=None):
        """A hash of what the guest reads, or None where QEMU cannot read it all."""
        out = self.folder / name
        options = ["-l", f"snapshot.name={snapshot}"] if snapshot else []
        try:
            qemu_img("convert", "-t", "unsafe", "-f", "qcow2", "-O", "raw", *options, image, out)
        except Exception:  # pylint: disable=broad-except
            return None
        return digest(out)

    def try_one(self, base, sound, damage, number, mode, restored):
        self.fresh_folder()
        path = self.folder / "disk.qcow2"
        path.write_bytes(base.read_bytes())
        tables = Tables(path, random.Random(number))
        damage(tables)
        tables.save()
        damaged = self.view(path, "damaged.raw") if mode == "safe" else None
        code, document = check_json(path, f"--repair={mode}")
        if mode == "safe":
            self.assertNotEqual(sound, damaged)
            if damaged is not None:
                self.assertEqual(self.view(path, "now.raw"), damaged)
            if restored and damage not in SHARING:
                # `safe` has left what `all` goes by.
                check_json(path, "--repair=all", "--no-undo")
                self.assertEqual(self.view(path, "now.raw"), sound)
            return
        if damage is entry_zeroed and code == 4 and not restored:
            # Nothing says that this is damage, so the cluster is kept as it is.
            self.assertEqual(codes(document), {"qcow2-refcount-leak"})
            return
        self.assertEqual(code, 1, document["findings"])
        qemu_img("check", "-q", "-f", "qcow2", path)
        if restored:
            self.assertEqual(self.view(path, "now.raw"), sound)
            self.assertGreater(document["repair"]["orphans"]["relinked"], 0)
        else:
            self.assert_all_kept(base, path)
        again = digest(path)
        self.assertEqual(check_json(path, "--repair=all")[0], 0)
        self.assertEqual(digest(path), again)

    def test_noise_is_no_cluster_of_zeros(self):
        """An entry that text was written over reads as zeros nowhere, whatever its flag says."""
        for layout in (FULL, SNAPSHOT, SPARSE):
            base = self._root / f"{layout.name}.qcow2"
            if not base.exists():
                fill(base, layout)
            sound = self.view(base, "sound.raw")
            for modes in (["all"], ["safe", "all"]):
                with self.subTest(layout=layout.name, modes=modes):
                    path = self.folder / "disk.qcow2"
                    path.write_bytes(base.read_bytes())
                    tables = Tables(path, random.Random(5))
                    entries_of_text(tables)
                    tables.save()
                    lost = []
                    for mode in modes:
                        _, document = check_json(path, f"--repair={mode}", "--no-undo")
                        lost = document["repair"]["lost"]
                    if layout is SPARSE:
                        self.assertTrue(lost or self.view(path, "now.raw") == sound)
                    else:
                        self.assertEqual(self.view(path, "now.raw"), sound)

    def test_what_was_cut_off_is_nowhere_else(self):
        """A cluster that a crash left without an owner, and a file that lost its end: the mapping of
        the end does not get that cluster, though it is the only one and the mapping, too."""
        base = self._root / "cut.qcow2"
        qemu_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", base, "1M")
        clusters = [5, 9, 2, 30, 17, 40, 60, 33]  # in the order of the file
        qemu_io(base, [f"write -P {number} {number * 4096} 4096" for number in clusters])
        tables = Tables(base, random.Random(1))
        tables.put(tables.tables[0] + 8 * 9, 0)
        tables.save()
        with open(base, "r+b") as file:
            file.truncate(base.stat().st_size - 4096)
        for modes in (["all"], ["safe"], ["safe", "all"]):
            with self.subTest(modes=modes):
                path = self.folder / "disk.qcow2"
                path.write_bytes(base.read_bytes())
                for mode in modes:
                    code, _ = check_json(path, f"--repair={mode}", "--no-undo")
                self.assertEqual(code, 4 if modes == ["safe"] else 1)
                self.assertIn(bytes([9]) * 4096, path.read_bytes())  # kept, reachable or not
                raw = self.folder / "now.raw"
                qemu_img("convert", "--salvage", "-O", "raw", path, raw)
                now = raw.read_bytes()
                for number in clusters:
                    lost = number in (9, 33)
                    self.assertEqual(now[number * 4096:(number + 1) * 4096],
                                     bytes([0 if lost else number]) * 4096, number)

    def test_a_donor_lends_what_nothing_else_knows(self):
        base = self._root / "donor.qcow2"
        fill(base, PERMUTED)
        self.fresh_folder()
        path, donor = self.folder / "disk.qcow2", self.folder / "older.qcow2"
        path.write_bytes(base.read_bytes())
        sound = self.view(path, "sound.raw")
        for damage in (table_zeroed, table_of_text, half_table_of_text, l1_entry_of_another,
                       entry_of_another, entry_zeroed):
            with self.subTest(damage=damage.__name__):
                path.write_bytes(base.read_bytes())
                donor.write_bytes(base.read_bytes())
                tables = Tables(path, random.Random(7))
                damage(tables)
                tables.save()
                before = digest(donor)
                code, document = check_json(path, "--repair=all", "--no-undo", "--donor", donor)
                self.assertEqual(code, 1, document["findings"])
                self.assertEqual(self.view(path, "now.raw"), sound)
                self.assertEqual(digest(donor), before)
                self.assertEqual(check_json(path)[0], 0)

    def test_a_donor_of_another_disk_lends_nothing(self):
        base, donor = self._root / "base.qcow2", self._root / "other.qcow2"
        fill(base, PERMUTED)
        qemu_img("create", "-q", "-f", "qcow2", "-o", f"cluster_size={CLUSTER}", donor, str(SIZE))
        write(donor, list(range(0, COUNT, 3)), 9)
        self.fresh_folder()
        path = self.folder / "disk.qcow2"
        path.write_bytes(base.read_bytes())
        sound = self.view(path, "sound.raw")
        tables = Tables(path, random.Random(7))
        entry_zeroed(tables)
        tables.save()
        check_json(path, "--repair=all", "--donor", donor)
        damaged = self.view(path, "now.raw")
        # At most the one cluster changes: the donor's other entries lead to nothing that is missing.
        with open(self.folder / "sound.raw", "rb") as a, open(self.folder / "now.raw", "rb") as b:
            one, two = a.read(), b.read()
        self.assertLessEqual(sum(one[i:i + CLUSTER] != two[i:i + CLUSTER]
                                 for i in range(0, SIZE, CLUSTER)), 1)
        self.assertIsNotNone(damaged)
        self.assertIsNotNone(sound)

    def assert_all_kept(self, base, path):
        """Every cluster of the disk before is still mapped by some layer."""
        def mapped(image):
            return {image.host(slot) for layer, _, _ in image.layers() for slot in image.slots(layer)}
        with Qcow2(base) as before, Qcow2(path) as after:
            self.assertEqual(mapped(before) - mapped(after), set())


if __name__ == "__main__":
    main()
