# SPDX-License-Identifier: Apache-2.0
"""Ways to damage refcounts, refcount blocks and the refcount table, to leak clusters and to lay
metadata over metadata."""
from imglib.damage_header import header_value
from imglib.make import MB
from imglib.patient import Unfit, copied, damage
from imglib.qcow2 import OFFSET_MASK

header_value("rt-unaligned", "rt-unaligned", "refcount_table_offset",
             lambda p: p.header["refcount_table_offset"] + 512,
             "a refcount table between clusters", harmless=True)
header_value("rt-empty", "rt-empty", "refcount_table_clusters", 0,
             "a refcount table of no clusters", harmless=True)
header_value("rt-cap", "rt-cap", "refcount_table_clusters",
             lambda p: 8 * MB // p.cluster_size + 1, "a refcount table above 8 MiB",
             harmless=True)
header_value("rt-past-eof", "rt-past-eof", "refcount_table_offset", lambda p: p.past_end(),
             "a refcount table behind the end of the file", harmless=True)


def table_entry(name, code, change, text, **more):
    """Registers a recipe that changes an entry in use of the refcount table."""
    def apply(p):
        entries = p.refcount_table()
        index = p.choose((i for i, e in enumerate(entries) if e), "refcount block")
        p.put_uint(p.header["refcount_table_offset"] + index * 8, 8, change(p, entries[index]))
    apply.__doc__ = text
    damage(name, code, harmless=True, **more)(apply)


table_entry("rt-entry-reserved", "rt-entry-reserved", lambda p, e: e | 1 << 3,
            "a reserved bit in the refcount table")
table_entry("rt-entry-bit-63", "rt-entry-past-eof", lambda p, e: copied(e),
            "bit 63 in an entry of the refcount table")
table_entry("rt-entry-unaligned", "rt-entry-unaligned", lambda p, e: e | 512,
            "a refcount block between clusters")
table_entry("rt-entry-past-eof", "rt-entry-past-eof", lambda p, e: p.past_end(),
            "a refcount block behind the end of the file")
table_entry("rt-entry-zero", "refcount-zero-used", lambda p, e: 0,
            "a refcount block that the table has lost")
table_entry("rb-overlap-l2", "rb-overlap",
            lambda p, e: p.choose(p.used_l1(), "L2 table")[1], "an L2 table as refcount block")
table_entry("rb-overlap-data", "rb-overlap", lambda p, e: p.host(p.slot()),
            "a data cluster as refcount block")


@damage("rt-entry-duplicate", "rt-entry-duplicate", harmless=True)
def _(p):
    """one refcount block for two parts of the file"""
    entries = p.refcount_table()
    index = p.choose((i for i, e in enumerate(entries) if e), "refcount block")
    empty = p.choose((i for i, e in enumerate(entries) if not e), "free refcount table entry")
    p.put_uint(p.header["refcount_table_offset"] + empty * 8, 8, entries[index])


@damage("rt-entry-far-unused", "rt-entry-past-eof", harmless=True)
def _(p):
    """a stray entry far on in the refcount table, naming a block that does not exist"""
    entries = p.refcount_table()
    p.put_uint(p.header["refcount_table_offset"] + (len(entries) - 1) * 8, 8, 1 << 50)


# --- single counts, every width

def counts(bits, contents):
    base = {"refcount_bits": bits, "cluster_size": 4096}

    @damage(f"refcount-zero-used-{bits}", "refcount-zero-used", harmless=True, **base)
    def _(p):
        """a count of 0 for a data cluster in use"""
        p.set_count(p.host(p.slot()) >> p.cluster_bits, 0)

    @damage(f"refcount-block-zeroed-{bits}", "refcount-zero-used", harmless=True, **base)
    def _(p):
        """a refcount block overwritten by zeros"""
        block = p.choose((e for e in p.refcount_table() if e), "refcount block")
        p.put(block & OFFSET_MASK, bytes(p.cluster_size))

    @damage(f"leak-zero-{bits}", "refcount-leak", harmless=True, **base)
    def _(p):
        """three leaked clusters of zeros"""
        p.append_clusters(bytes(3 * p.cluster_size))

    if bits == 1:
        return

    @damage(f"refcount-high-{bits}", "refcount-leak", harmless=True, **base)
    def _(p):
        """a count too high for a data cluster in use"""
        p.set_count(p.host(p.slot()) >> p.cluster_bits, min((1 << bits) - 1, 200))

    @damage(f"refcount-max-{bits}", "refcount-leak", harmless=True, **base)
    def _(p):
        """the highest count there is, for an L2 table"""
        table = p.choose(p.used_l1(), "L2 table")[1]
        p.set_count(table >> p.cluster_bits, (1 << bits) - 1)

    @damage(f"refcount-low-{bits}", "refcount-low", harmless=True, content=contents, **base)
    def _(p):
        """a count of 1 for a cluster that several snapshots share"""
        shared = p.choose((c for c, claims in p.claims.by_cluster.items() if len(claims) > 1),
                          "shared cluster")
        p.set_count(shared, 1)


for width in (1, 2, 4, 8, 16, 32, 64):
    counts(width, "snapshots")


@damage("refcount-overflow", "refcount-overflow", refcount_bits=1)
def _(p):
    """two references to a cluster whose count has one bit"""
    first, second = p.two_slots()
    p.set_slot(second, first.entry)


@damage("refcount-past-eof", "refcount-past-eof", harmless=True)
def _(p):
    """a count for a cluster behind the end of the file"""
    p.set_count(p.past_end(5) >> p.cluster_bits, 1)


# --- leaks by what they hold

@damage("leak-content", "refcount-leak", harmless=True)
def _(p):
    """two leaked clusters holding bytes that are nowhere else"""
    p.append_clusters(p.random.randbytes(2 * p.cluster_size))


@damage("leak-copy", "refcount-leak", harmless=True)
def _(p):
    """a leaked cluster that repeats a cluster in use"""
    p.append_clusters(p.read(p.host(p.slot()), p.cluster_size))


@damage("leak-lost-mapping", "refcount-leak")
def _(p):
    """a data cluster that its L2 entry has lost"""
    p.set_slot(p.slot(), 0)


@damage("file-tail", "file-tail", harmless=True)
def _(p):
    """bytes behind the last cluster in use"""
    p.append_clusters(p.random.randbytes(2 * p.cluster_size + 100), counted=False)


# --- metadata over metadata

@damage("meta-overlap-l1-entry", "meta-overlap", "rb-overlap")
def _(p):
    """a refcount block used as L2 table"""
    index, _ = p.choose(p.used_l1(), "L2 table")
    block = p.choose((e for e in p.refcount_table() if e), "refcount block")
    p.put_uint(p.l1_place(index), 8, copied(block))


@damage("meta-overlap-l1-in-l1", "meta-overlap")
def _(p):
    """the L1 table used as L2 table"""
    index, _ = p.choose(p.used_l1(), "L2 table")
    p.put_uint(p.l1_place(index), 8, copied(p.header["l1_table_offset"]))


@damage("meta-overlap-snapshot-l1", "meta-overlap", content="snapshots")
def _(p):
    """a snapshot whose L1 table is the active one"""
    p.set_snapshot(p.snapshot(), "l1_table_offset", p.header["l1_table_offset"])


@damage("meta-overlap-bitmap", "meta-overlap", "bitmap-tentry-offset", content="bitmaps")
def _(p):
    """a bitmap's data on the refcount table"""
    bitmap = p.bitmap(lambda b: any(e & OFFSET_MASK for e in b.table))
    index = next(i for i, e in enumerate(bitmap.table) if e & OFFSET_MASK)
    p.put_uint(bitmap.table_offset + index * 8, 8, p.header["refcount_table_offset"])


@damage("meta-overlap-luks", "luks-in-file", "meta-overlap", content="luks")
def _(p):
    """an L2 table inside the LUKS header"""
    if not p.luks_offset():
        raise Unfit("the image has no LUKS header")
    index, _ = p.choose(p.used_l1(), "L2 table")
    p.put_uint(p.l1_place(index), 8, copied(p.luks_offset() + p.cluster_size))
