# SPDX-License-Identifier: Apache-2.0
"""Ways to damage L1 and L2 tables: entries of every kind, and the data file they may point to."""
import os

from imglib.damage_header import header_value
from imglib.make import MB
from imglib.patient import Unfit, copied, damage
from imglib.programs import luks_target, qemu_io, run
from imglib.qcow2 import COMPRESSED, COPIED, EXT_DATA_FILE, OFFSET_MASK, ZERO

CLUSTER_64K = 65536
EXTENDED = {"content": "extended-l2", "cluster_size": 16384}

header_value("l1-unaligned", "l1-unaligned", "l1_table_offset",
             lambda p: p.header["l1_table_offset"] + 512, "an L1 table between clusters")
header_value("l1-short", "l1-short", "l1_size", lambda p: p.header["l1_size"] - 1,
             "an L1 table one entry too short")
header_value("l1-short-zero", "l1-short", "l1_size", 0, "an L1 table of no entries")
header_value("l1-cap", "l1-cap", "l1_size", 32 * MB // 8 + 1, "an L1 table above 32 MiB")
header_value("l1-oversize", "l1-oversize", "l1_size", lambda p: p.header["l1_size"] + 5,
             "an L1 table longer than the disk needs", harmless=True)
header_value("l1-past-eof", "l1-past-eof", "l1_table_offset", lambda p: p.past_end(),
             "an L1 table behind the end of the file")
header_value("l1-offset-zero", "l1-offset-zero", "l1_table_offset", 0, "an L1 table at offset 0")


# --- L1 entries

def l1_entry(name, code, change, text, **more):
    def apply(p):
        index, table = p.choose(p.used_l1(), "L2 table")
        p.put_uint(p.l1_place(index), 8, change(p, p.u64(p.l1_place(index)), table))
    apply.__doc__ = text
    damage(name, code, **more)(apply)


l1_entry("l1-entry-reserved-high", "l1-entry-reserved", lambda p, e, t: e | 1 << 60,
         "a reserved high bit in an L1 entry", harmless=True)
l1_entry("l1-entry-reserved-low", "l1-entry-reserved", lambda p, e, t: e | 1 << 4,
         "a reserved low bit in an L1 entry", harmless=True)
l1_entry("l1-entry-unaligned", "l1-entry-unaligned", lambda p, e, t: e | 512,
         "an L2 table between clusters")
l1_entry("l1-entry-past-eof", "l1-entry-past-eof", lambda p, e, t: copied(p.past_end()),
         "an L2 table behind the end of the file")
l1_entry("l1-entry-far", "l1-entry-past-eof", lambda p, e, t: copied(1 << 55),
         "an L2 table behind the end of every file")
l1_entry("l1-copied-clear", "l1-copied", lambda p, e, t: e & ~COPIED,
         "COPIED missing in an L1 entry", harmless=True)


@damage("l1-copied-set", "l1-copied", content="snapshots", harmless=True)
def _(p):
    """COPIED in an L1 entry whose table a snapshot shares"""
    index, _ = p.choose(((i, t) for i, t in p.used_l1()
                         if p.stored(t >> p.cluster_bits) > 1), "shared L2 table")
    p.put_uint(p.l1_place(index), 8, copied(p.l1()[index]))


@damage("l1-entry-duplicate", "l1-entry-duplicate")
def _(p):
    """two L1 entries with one L2 table"""
    first, table = p.choose(p.used_l1(), "L2 table")
    second, _ = p.choose(((i, t) for i, t in p.used_l1() if t != table), "second L2 table")
    p.put_uint(p.l1_place(second), 8, p.l1()[first])


@damage("l1-entry-zeroed", "l2-orphan")
def _(p):
    """an L1 entry of zero: its L2 table and all that it maps has no owner"""
    index, _ = p.choose(p.used_l1(), "L2 table")
    p.put_uint(p.l1_place(index), 8, 0)


def overwrite_table(name, code, content, text):
    def apply(p):
        _, table = p.choose(p.used_l1(), "L2 table")
        p.put(table, content(p)[:p.cluster_size])
    apply.__doc__ = text
    damage(name, code)(apply)


overwrite_table("l2-text", "l2-implausible", lambda p: b"lorem ipsum dolor sit amet, " * 160,
                "an L2 table overwritten by text")
overwrite_table("l2-refblock", "l2-implausible", lambda p: b"\0\1" * (p.cluster_size // 2),
                "an L2 table overwritten by a refcount block")
overwrite_table("l2-zeroed", "l2-empty-with-leaks", lambda p: bytes(p.cluster_size),
                "an L2 table overwritten by zeros")


# --- L2 entries

def l2_entry(name, code, change, text, state="data", **more):
    def apply(p):
        slot = p.slot(state)
        p.set_slot(slot, change(p, slot.entry))
    apply.__doc__ = text
    damage(name, code, **more)(apply)


l2_entry("l2-entry-reserved-high", "l2-entry-reserved", lambda p, e: e | 1 << 58,
         "a reserved high bit in an L2 entry", harmless=True)
l2_entry("l2-entry-reserved-low", "l2-entry-reserved", lambda p, e: e | 1 << 5,
         "a reserved low bit in an L2 entry", harmless=True)
l2_entry("l2-entry-unaligned", "l2-entry-unaligned", lambda p, e: e | 1024,
         "a data cluster between clusters")
l2_entry("l2-entry-past-eof", "l2-entry-past-eof", lambda p, e: copied(p.past_end()),
         "a data cluster behind the end of the file")
l2_entry("l2-entry-far", "l2-entry-past-eof", lambda p, e: copied(OFFSET_MASK & -p.cluster_size),
         "a data cluster behind the end of every file")
l2_entry("l2-offset-zero-copied", "l2-offset-zero-copied", lambda p, e: COPIED,
         "COPIED in an L2 entry without an offset")
l2_entry("l2-copied-clear", "l2-copied", lambda p, e: e & ~COPIED,
         "COPIED missing in an L2 entry", harmless=True)
l2_entry("l2-zero-flag-v2", "l2-zero-flag-v2", lambda p, e: e | ZERO,
         "the zero flag in a version 2 image", compat="v2")
l2_entry("l2-zero-flag-extl2", "l2-zero-flag-extl2", lambda p, e: e | ZERO,
         "the zero flag with extended L2 entries", harmless=True, **EXTENDED)


@damage("l2-entry-text", "l2-entry-unaligned", content="snapshots")
def _(p):
    """the end of an L2 entry overwritten by text, which sets its zero flag, too"""
    p.put(p.slot().place + 3, b"Hello")


@damage("l2-copied-set", "l2-copied", content="snapshots", harmless=True)
def _(p):
    """COPIED in an L2 entry whose cluster a snapshot shares"""
    slot = p.slot(where=lambda s: not s.entry & COPIED and p.stored(p.host(s) >> p.cluster_bits) > 1)
    p.set_slot(slot, copied(slot.entry))


@damage("l2-data-crosslink", "l2-data-crosslink")
def _(p):
    """two guest clusters on one host cluster"""
    first, second = p.two_slots()
    p.set_slot(second, first.entry)


@damage("l2-data-crosslink-counted", "l2-data-crosslink")
def _(p):
    """two guest clusters on one host cluster, the count saying so"""
    first, second = p.two_slots()
    p.set_slot(second, first.entry & ~COPIED)
    p.set_slot(first, first.entry & ~COPIED)
    p.set_count(p.host(first) >> p.cluster_bits, 2)
    p.set_count(p.host(second) >> p.cluster_bits, 0)


def data_on(kind):
    def apply(p):
        slot, cluster = p.slot(), p.cluster_of(kind)
        p.set_slot(slot, copied(cluster << p.cluster_bits))
    apply.__doc__ = f"a guest cluster on the {kind}"
    damage(f"l2-data-on-{kind}", "l2-data-on-metadata")(apply)


for metadata in ("l1", "l2", "refcount-table", "refcount-block"):
    data_on(metadata)


@damage("l2-tail-short", "l2-tail-short")
def _(p):
    """a file that ends inside its last cluster, which holds data"""
    last = max(p.slots(), key=p.host)
    if p.host(last) + p.cluster_size < p.file_size or p.state(last) != "data":
        # Something else lies last: one more data cluster behind it.
        place = p.append_clusters(p.random.randbytes(p.cluster_size))
        p.put_uint(p.empty_slot_place()[0], 8, copied(place))
    p.truncate(os.fstat(p.fd).st_size - 700)


@damage("l2-past-size", "l2-past-size")
def _(p):
    """a disk made shorter in the header alone"""
    last = p.slot(where=lambda s: s.guest >= p.size - p.cluster_size)
    p.set_header(size=last.guest)


@damage("data-hole", "data-hole", cluster_size=CLUSTER_64K, options=("--deep",))
def _(p):
    """a data cluster whose bytes the host file no longer holds"""
    run("fallocate", "--punch-hole", "--offset", p.host(p.slot()), "--length", p.cluster_size,
        p.path, check=True)


# --- compressed clusters

def compressed_parts(p, slot):
    x = 62 - (p.cluster_bits - 8)
    return slot.entry & ((1 << x) - 1), (slot.entry & ~COMPRESSED) >> x, x


def compressed_entry(name, code, change, text, **more):
    def apply(p):
        slot = p.slot("compressed")
        p.set_slot(slot, change(p, slot.entry))
    apply.__doc__ = text
    damage(name, code, **{"content": "zlib", **more})(apply)


compressed_entry("compr-copied", "compr-copied", lambda p, e: copied(e),
                 "COPIED in a compressed entry", harmless=True)
compressed_entry("compr-reserved", "compr-reserved", lambda p, e: e | 1 << 56,
                 "an offset of a compressed cluster above 2^56")
compressed_entry("compr-past-eof", "compr-past-eof", lambda p, e: COMPRESSED | p.past_end() + 77,
                 "a compressed cluster behind the end of the file")
compressed_entry("compr-on-metadata", "l2-data-on-metadata", lambda p, e: COMPRESSED |
                 p.cluster_of("refcount-block") << p.cluster_bits,
                 "a compressed cluster that starts inside a refcount block")


@damage("compr-overlap", "compr-overlap", content="zlib", options=("--deep",))
def _(p):
    """two guest clusters with one compressed stream"""
    first, second = p.two_slots("compressed")
    p.set_slot(second, first.entry)


@damage("compr-on-std", "compr-on-std", content="zlib")
def _(p):
    """a compressed cluster inside a standard data cluster"""
    p.set_slot(p.slot("compressed"), COMPRESSED | p.host(p.slot()) + 100)


@damage("compr-data-file", "compr-data-file", content="data-file")
def _(p):
    """a compressed cluster in an image with a data file"""
    p.set_slot(p.slot(), COMPRESSED | p.cluster_size)


@damage("compr-plaintext", "compr-plaintext", content="luks")
def _(p):
    """a compressed cluster in an encrypted image, as QEMU writes it: not encrypted"""
    guest = p.empty_slot_place()[1]
    qemu_io(p.path, [f"write -c -P 0x33 {guest} {p.cluster_size}"], luks_target(p.path))


@damage("compr-undecodable", "compr-undecodable", content="zlib", options=("--deep",))
def _(p):
    """a compressed stream overwritten"""
    offset, length = p.compressed_span(p.slot("compressed").entry)
    p.put(offset, b"\xff" * min(length, 200))


@damage("compr-short-span", "compr-short-span", content="zlib", options=("--deep",))
def _(p):
    """a compressed cluster whose entry names fewer sectors than the stream has"""
    slot = p.slot("compressed", where=lambda s: compressed_parts(p, s)[1] > 0)
    p.set_slot(slot, slot.entry - (compressed_parts(p, slot)[1] << compressed_parts(p, slot)[2]))


@damage("compr-long-span", "compr-long-span", content="zlib", options=("--deep",))
def _(p):
    """a compressed cluster whose entry names a host cluster more than the stream touches"""
    slot = p.slot("compressed")
    p.set_slot(slot, slot.entry | 15 << compressed_parts(p, slot)[2])


# --- extended entries

@damage("extl2-both-bits", "extl2-both-bits", **EXTENDED)
def _(p):
    """a subcluster both allocated and zero"""
    slot = p.slot(where=lambda s: s.bitmap & 1)
    p.set_slot(slot, slot.entry, slot.bitmap | 1 << 32)


@damage("extl2-alloc-no-host", "extl2-alloc-no-host", **EXTENDED)
def _(p):
    """subclusters allocated in no host cluster"""
    place, _ = p.empty_slot_place()
    p.put_uint(place + 8, 8, 0x7)


@damage("extl2-compr-bitmap", "extl2-compr-bitmap", **EXTENDED)
def _(p):
    """subcluster bits on a compressed cluster"""
    place, guest = p.empty_slot_place()
    qemu_io(p.path, [f"write -c -P 0x44 {guest} {p.cluster_size}"])
    p.put_uint(place + 8, 8, 0x1)


@damage("extl2-past-size", "extl2-past-size", **EXTENDED)
def _(p):
    """subclusters allocated behind the end of the disk"""
    p.set_header(size=p.size - 2 * 512)


# --- data files

@damage("datafile-offset", "datafile-offset", content="data-file")
def _(p):
    """a guest cluster at another place of the data file"""
    slot = p.slot(where=lambda s: s.guest)
    p.set_slot(slot, copied(p.host(slot) + p.cluster_size))


@damage("datafile-copied", "datafile-copied", content="data-file", harmless=True)
def _(p):
    """COPIED missing with a data file"""
    slot = p.slot(where=lambda s: s.guest)
    p.set_slot(slot, slot.entry & ~COPIED)


@damage("datafile-short", "datafile-short", content="data-file")
def _(p):
    """a data file cut short"""
    extension = p.extension(EXT_DATA_FILE)
    if not extension:
        raise Unfit("the image names no data file")
    os.truncate(os.path.join(os.path.dirname(p.path), extension.data.decode()), p.size // 2)


@damage("datafile-raw-map", "datafile-raw-map", content="data-file-raw")
def _(p):
    """a cluster of a raw data file that is not mapped"""
    p.set_slot(p.slot(where=lambda s: s.guest), 0)
