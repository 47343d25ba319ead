#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The last good value and the first bad one on either side of every limit: a finding appears exactly
beyond it."""
from imglib.make import MB, Recipe
from imglib.patient import Patient, copied
from imglib.programs import check_json, qemu_img, qemu_io
from imglib.qcow2 import (BITMAP_ENTRY, COMPRESSED, EXT_BACKING_FORMAT, EXT_BITMAPS, EXT_FEATURES,
                          OFFSET_MASK)
from imglib.testing import ImageTest, codes, main, sample, summary

LIMITS = []
LARGE = {"cluster_size": 65536}


def limit(code, change, good, bad, **base):
    """change(patient, value) damages the image; the finding `code` comes with the bad values only."""
    LIMITS.append((code, change, good, bad, Recipe(**base)))


def header(name):
    return lambda p, value: p.set_header(**{name: value(p) if callable(value) else value})


def header_bit(name):
    return lambda p, bit: p.set_header_bits(name, 1 << bit)


def l1_min(p):
    span = p.l2_entries * p.cluster_size
    return -(-p.size // span)


limit("hdr-version", header("version"), [2, 3], [4, 0xFFFFFFFF])
limit("hdr-cluster-bits", header("cluster_bits"), [9, 21], [8, 22, 0, 0xFFFFFFFF])
limit("hdr-length-short", header("header_length"), [104, 112, 4096], [0, 96, 103])
limit("hdr-length-unaligned", header("header_length"), [104, 112], [105, 111])
limit("hdr-length-over", header("header_length"), [4096], [4104, 0xFFFFFFF8])
limit("hdr-incompat-unknown", header_bit("incompatible_features"), [0, 1, 4], [5, 63])
limit("hdr-compat-unknown", header_bit("compatible_features"), [0], [1, 63])
limit("hdr-autoclear-unknown", header_bit("autoclear_features"), [0, 1], [2, 63])
limit("hdr-refcount-order", header("refcount_order"), [0, 4, 6], [7, 0xFFFFFFFF])
limit("hdr-crypt-method", header("crypt_method"), [0, 1, 2], [3, 0xFFFFFFFF])
limit("hdr-compression-type", header("compression_type"), [0, 1], [2, 255], content="zstd")
limit("hdr-size-unaligned", header("size"),
      [lambda p: p.size - 512, lambda p: p.size], [lambda p: p.size - 1, lambda p: p.size + 1])
# An L1 table of 32 MiB maps so much with clusters of 4 KiB.
limit("hdr-size-cap", header("size"), [1 << 43], [(1 << 43) + 512, (1 << 64) - 512])
limit("hdr-extl2-cluster", header("cluster_bits"), [14, 21], [9, 13], content="extended-l2",
      cluster_size=16384)

limit("l1-short", header("l1_size"), [l1_min], [lambda p: l1_min(p) - 1, 0])
limit("l1-oversize", header("l1_size"), [l1_min], [lambda p: l1_min(p) + 1])
limit("l1-cap", header("l1_size"), [32 * MB // 8], [32 * MB // 8 + 1, 0xFFFFFFFF])
limit("l1-unaligned", header("l1_table_offset"), [lambda p: p.header["l1_table_offset"]],
      [lambda p: p.header["l1_table_offset"] + 1, lambda p: p.header["l1_table_offset"] + 2048])
limit("l1-past-eof", header("l1_table_offset"), [lambda p: p.past_end(-1)],
      [lambda p: p.past_end(0), 1 << 55])
limit("rt-unaligned", header("refcount_table_offset"),
      [lambda p: p.header["refcount_table_offset"]],
      [lambda p: p.header["refcount_table_offset"] + 1])
limit("rt-empty", header("refcount_table_clusters"), [1], [0])
limit("rt-cap", header("refcount_table_clusters"), [8 * MB // 4096],
      [8 * MB // 4096 + 1, 0xFFFFFFFF])
limit("rt-past-eof", header("refcount_table_offset"), [lambda p: p.past_end(-1)],
      [lambda p: p.past_end(0)])


def l1_offset(p, value):
    index, _ = p.used_l1()[0]
    p.put_uint(p.l1_place(index), 8, copied(value(p)))


limit("l1-entry-past-eof", l1_offset, [lambda p: p.past_end(-1)],
      [lambda p: p.past_end(0), lambda p: OFFSET_MASK & -p.cluster_size])
limit("l1-entry-unaligned", l1_offset, [lambda p: p.used_l1()[0][1]],
      [lambda p: p.used_l1()[0][1] + 512, lambda p: p.used_l1()[0][1] + 2048])


def l1_bit(p, bit):
    index, _ = p.used_l1()[0]
    p.put_uint(p.l1_place(index), 8, p.l1()[index] | 1 << bit)


limit("l1-entry-reserved", l1_bit, [63], [0, 8, 56, 62])


def l2_offset(p, value):
    slot = p.slot()
    p.set_slot(slot, copied(value(p)))


limit("l2-entry-past-eof", l2_offset, [lambda p: p.past_end(-1)],
      [lambda p: p.past_end(0), lambda p: OFFSET_MASK & -p.cluster_size])


def l2_bit(p, bit):
    slot = p.slot()
    p.set_slot(slot, slot.entry | 1 << bit)


limit("l2-entry-reserved", l2_bit, [0, 63], [1, 8, 56, 61])


def cut_short(p, missing):
    """The file ends so many bytes before the end of a data cluster that lies last."""
    place = p.append_clusters(p.random.randbytes(p.cluster_size))
    p.put_uint(p.empty_slot_place()[0], 8, copied(place))
    p.truncate(place + p.cluster_size - missing)


limit("l2-tail-short", cut_short, [0], [1, 4095])
limit("l2-entry-past-eof", cut_short, [0, 1, 4095], [4096])


def beyond_disk(p, offset):
    """A data cluster mapped so many bytes behind the end of a shortened disk."""
    last = max((s for s in p.slots() if p.state(s) == "data"), key=lambda s: s.guest)
    p.set_header(size=last.guest - offset)


limit("l2-past-size", beyond_disk, [-512, -4096], [0, 512])


def count_at(p, clusters):
    p.set_count(p.past_end(clusters) >> p.cluster_bits, 1)


limit("refcount-past-eof", count_at, [-1], [0, 7])


def stored_count(p, change):
    shared = p.choose((c for c, claims in p.claims.by_cluster.items() if len(claims) > 1), "cluster")
    p.set_count(shared, len(p.claims.by_cluster[shared]) + change)


limit("refcount-leak", stored_count, [0, -1], [1], content="snapshots")
limit("refcount-low", stored_count, [0, 1], [-1], content="snapshots")


def compressed_at(p, value):
    p.set_slot(p.slot("compressed"), COMPRESSED | value(p))


limit("compr-past-eof", compressed_at, [lambda p: p.file_size - 1],
      [lambda p: p.file_size, lambda p: p.past_end()], content="zlib")

# --- names and extensions


def backing_name(p, length):
    """A name of so many letters that leads to the base: ./././base"""
    name = p.read(p.header["backing_file_offset"], p.header["backing_file_size"])
    more = length - len(name)
    name = (b"./" * (more // 2) if more % 2 == 0 else b".//" + b"./" * (more // 2 - 1)) + name
    assert len(name) == length
    p.set_extensions(p.extension_list(), name)


limit("backing-size", backing_name, [100, 1023], [1024], content="backing")


def backing_at_end(p, over):
    """The name ends so many bytes behind the end of cluster 0."""
    name = p.read(p.header["backing_file_offset"], p.header["backing_file_size"])
    p.put(p.cluster_size - len(name), name)
    p.set_header(backing_file_offset=p.cluster_size - len(name) + over)


limit("backing-size", backing_at_end, [0], [1], content="backing")


def backing_format(p, length):
    p.change_extension(EXT_BACKING_FORMAT, b"raw".ljust(length, b"\0")[:length])


limit("ext-backing-format-long", backing_format, [0, 3, 15], [2, 16, 200], content="backing")


def feature(at):
    def change(p, value):
        table = bytearray(dict(p.extension_list())[EXT_FEATURES])
        table[48 + at] = value
        p.change_extension(EXT_FEATURES, bytes(table))
    return change


limit("ext-feature-table", feature(0), [0, 1, 2], [3, 255], **LARGE)
limit("ext-feature-table", feature(1), [0, 63], [64, 255], **LARGE)


def extension_length(p, over):
    """The only extension ends so many bytes behind the end of cluster 0."""
    start = p.header["header_length"]
    p.put_uint(start, 4, 0x7E571234)
    p.put_uint(start + 4, 4, p.cluster_size - start - 8 + over)


limit("ext-overrun", extension_length, [-8, 0], [1, 8])

# --- snapshots


def snapshot(name):
    def change(p, value):
        first = p.snapshots[0]
        p.set_snapshot(first, name, value(p, first) if callable(value) else value)
    return change


def snapshot_extra(p, length):
    records = [p.snapshot_record(s) for s in p.snapshots]
    extra = p.snapshots[0].extra
    records[0] = p.snapshot_record(p.snapshots[0], extra=(extra + bytes(length))[:length])
    p.set_snapshot_table(records)


SNAPSHOTS = {"content": "snapshots"}
limit("snap-count-cap", header("nb_snapshots"), [65536], [65537, 0xFFFFFFFF], **SNAPSHOTS)
limit("snap-extra-short", snapshot_extra, [16, 24, 1024], [0, 8, 15], **SNAPSHOTS)
limit("snap-extra-cap", snapshot_extra, [1024], [1025, 1032], **SNAPSHOTS)
limit("snap-l1-short", snapshot("l1_size"), [lambda p, s: l1_min(p)],
      [lambda p, s: l1_min(p) - 1, 0], **SNAPSHOTS)
limit("snap-l1-cap", snapshot("l1_size"), [32 * MB // 8], [32 * MB // 8 + 1, 0xFFFFFFFF],
      **SNAPSHOTS)
limit("snap-l1-unaligned", snapshot("l1_table_offset"), [lambda p, s: s.l1_table_offset],
      [lambda p, s: s.l1_table_offset + 1, lambda p, s: s.l1_table_offset + 2048], **SNAPSHOTS)
limit("snap-l1-past-eof", snapshot("l1_table_offset"), [lambda p, s: p.past_end(-1)],
      [lambda p, s: p.past_end(0)], **SNAPSHOTS)
limit("snap-time", snapshot("date_nsec"), [0, 999999999], [1000000000, 0xFFFFFFFF], **SNAPSHOTS)
limit("snap-table-unaligned", header("snapshots_offset"),
      [lambda p: p.header["snapshots_offset"]],
      [lambda p: p.header["snapshots_offset"] + 1, lambda p: p.header["snapshots_offset"] + 2048],
      **SNAPSHOTS)

# --- bitmaps

BITMAPS = {"content": "bitmaps"}


def bitmap(name):
    def change(p, value):
        first = p.bitmaps[0]
        p.set_bitmap(first, name, value(first) if callable(value) else value)
    return change


def bitmap_name(p, length):
    """A directory anew in which the first bitmap's name has so many letters."""
    entries = b""
    for index, old in enumerate(p.bitmaps):
        name = b"n" * length if index == 0 else old.name
        values = {**old.fields, "name_size": len(name)}
        entry = b"".join(values[field].to_bytes(size, "big")
                         for field, (_, size) in BITMAP_ENTRY.items()) + name
        entries += entry + bytes(-len(entry) % 8)
    place = p.append_clusters(entries)
    data = dict(p.extension_list())[EXT_BITMAPS]
    p.change_extension(EXT_BITMAPS, data[:8] + len(entries).to_bytes(8, "big") +
                       place.to_bytes(8, "big"))


def last_bits(p, bit):
    """Sets the bit that stands so many after the last one that the bitmap has."""
    first = p.bitmap(lambda b: b.table and b.table[-1] & OFFSET_MASK)
    number = -(-p.size // (1 << first.fields["granularity_bits"])) - 1 + bit
    number -= (len(first.table) - 1) * p.cluster_size * 8
    place = (first.table[-1] & OFFSET_MASK) + number // 8
    p.put(place, bytes([p.read(place, 1)[0] | 1 << number % 8]))


limit("bitmap-name", bitmap_name, [1, 1023], [0, 1024], **BITMAPS)
limit("bitmap-granularity", bitmap("granularity_bits"), [9, 16, 31], [0, 8, 32, 255], **BITMAPS)
limit("bitmap-flags", bitmap("flags"), [0, 1, 2, 3], [8, 1 << 31], **BITMAPS)
limit("bitmap-type", bitmap("type"), [1], [0, 2, 255], **BITMAPS)
limit("bitmap-table-size", bitmap("table_size"), [lambda b: b.table_size],
      [lambda b: b.table_size + 1, lambda b: b.table_size - 1, 0xFFFFFFFF], **BITMAPS)
limit("bitmap-tail-bits", last_bits, [0], [1, 7], **BITMAPS)

# --- LUKS


def luks(at, size):
    return lambda p, value: p.put(p.luks_offset() + at, value.to_bytes(size, "big"))


LUKS = {"content": "luks"}
limit("luks-header", luks(6, 2), [1], [0, 2], **LUKS)
limit("luks-slot-layout", luks(208 + 44, 4), [4000], [3999, 4001, 0], **LUKS)
limit("luks-slot-state", luks(208 + 48, 4), [0x0000DEAD], [0, 0x0000DEAE], **LUKS)


class Limits(ImageTest):
    on_disk = False

    def found(self, change, value, recipe):
        self.fresh_folder()
        path = self.sound(recipe)
        patient = Patient(path)
        try:
            change(patient, value)
        finally:
            patient.close()
        code, document = check_json(path)
        self.assertIn(code, (0, 4))
        # A good value may contradict the image that it is put into: that is no limit.
        return codes({"findings": [f for f in document["findings"]
                                   if "the tables say" not in str(f)]}), document

    def test_each_limit(self):
        for code, change, good, bad, recipe in sample(LIMITS, len(LIMITS), 20):
            for value, expected in [(v, False) for v in good] + [(v, True) for v in bad]:
                with self.subTest(code=code, value=value, expected=expected):
                    found, document = self.found(change, value, recipe)
                    self.assertEqual(f"qcow2-{code}" in found, expected, summary(document))

    def one_for_all(self, table, entries):
        """A large table each entry of which names the same cluster of 2 MiB; the image, sound but
        for that."""
        self.fresh_folder()
        path = self.folder / "disk.qcow2"
        qemu_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=2M", path, "64M")
        qemu_io(path, ["write -P 1 0 512"])
        patient = Patient(path)
        try:
            entry = patient.read(patient.header[table], 8)
            place = patient.append_clusters(entry * entries)
            patient.set_header(**{table: place})
            if table == "l1_table_offset":
                patient.set_header(l1_size=entries, size=entries << 39)
        finally:
            patient.close()
        return path

    def test_one_cluster_for_all(self):
        """Each structure is read once, however often a damaged table names it."""
        for table in ("refcount_table_offset", "l1_table_offset"):
            path = self.one_for_all(table, (2 << 20) // 8)
            with self.subTest(table=table):
                code, document = check_json(path, timeout=100)
                self.assertEqual(code, 4, summary(document))


if __name__ == "__main__":
    main()
