# SPDX-License-Identifier: Apache-2.0
"""Ways to damage the snapshot table and the L1 and L2 tables of snapshots."""
from imglib.damage_header import header_value
from imglib.make import MB
from imglib.patient import Unfit, copied, damage
from imglib.qcow2 import COPIED, OFFSET_MASK, SNAPSHOT_ENTRY

SNAPSHOTS = {"content": "snapshots"}

header_value("snap-table-unaligned", "snap-table-unaligned", "snapshots_offset",
             lambda p: p.header["snapshots_offset"] + 8, "a snapshot table between clusters",
             **SNAPSHOTS)
header_value("snap-table-unaligned-empty", "snap-table-unaligned", "snapshots_offset", 8,
             "an offset between clusters for a snapshot table of no entries", harmless=True)
header_value("snap-table-past-eof", "snap-table-past-eof", "snapshots_offset",
             lambda p: p.past_end(), "a snapshot table behind the end of the file", **SNAPSHOTS)
header_value("snap-count-cap", "snap-count-cap", "nb_snapshots", 65537,
             "more snapshots than QEMU allows", **SNAPSHOTS)
header_value("snap-count-max", "snap-count-cap", "nb_snapshots", 0xFFFFFFFF,
             "a snapshot count of all ones", **SNAPSHOTS)
header_value("snap-undercount", "snap-undercount", "nb_snapshots",
             lambda p: p.header["nb_snapshots"] - 1, "one snapshot fewer than the table holds",
             **SNAPSHOTS)
header_value("snap-undercount-zero", "snap-undercount", "nb_snapshots", 0,
             "no snapshots in a table that holds some", **SNAPSHOTS)
header_value("snap-phantom", "snap-phantom", "nb_snapshots",
             lambda p: p.header["nb_snapshots"] + 1, "one snapshot more than the table holds",
             **SNAPSHOTS)


header_value("snap-table-zero", "snap-table-past-eof", "snapshots_offset", 0,
             "a snapshot table at offset 0", **SNAPSHOTS)
header_value("snap-table-next", "snap-table-unaligned", "snapshots_offset",
             lambda p: p.header["snapshots_offset"] + 512, "a snapshot table one sector off",
             **SNAPSHOTS)


@damage("snap-table-lost", "snap-table-unaligned", **SNAPSHOTS)
def _(p):
    """a snapshot table between clusters and overwritten"""
    if not p.snapshots:
        raise Unfit("the image has no snapshots")
    p.put(p.header["snapshots_offset"], b"\xff" * p.cluster_size)
    p.set_header(snapshots_offset=p.header["snapshots_offset"] + 8)


@damage("snap-table-cap", "snap-table-cap", cluster_size=65536)
def _(p):
    """a snapshot table above 64 MiB"""
    extra = (0).to_bytes(8, "big") + (0).to_bytes(8, "big")
    values = {name: 0 for name in SNAPSHOT_ENTRY}
    values.update(id_size=4, name_size=65000, extra_data_size=len(extra))
    fixed = b"".join(values[name].to_bytes(size, "big")
                     for name, (_, size) in SNAPSHOT_ENTRY.items())
    records = [fixed + extra + b"%04d" % i + b"n" * 65000 for i in range(1040)]
    table = b"".join(record + bytes(-len(record) % 8) for record in records)
    p.set_header(snapshots_offset=p.append_clusters(table), nb_snapshots=len(records))


@damage("snap-orphan-l1", "snap-orphan-l1", **SNAPSHOTS)
def _(p):
    """a snapshot table forgotten by the header and overwritten, the snapshots' tables intact"""
    if not p.snapshots:
        raise Unfit("the image has no snapshots")
    p.put(p.header["snapshots_offset"], bytes(p.cluster_size))
    p.set_header(nb_snapshots=0, snapshots_offset=0)


@damage("snap-offset-stale", "snap-offset-stale", harmless=True)
def _(p):
    """an offset for a snapshot table of no entries"""
    if p.snapshots:
        raise Unfit("the image has snapshots")
    p.set_header(snapshots_offset=p.past_end())


def snapshot_field(name, code, field, value, text, **more):
    def apply(p):
        snapshot = p.snapshot()
        p.set_snapshot(snapshot, field, value(p, snapshot) if callable(value) else value)
    apply.__doc__ = text
    damage(name, code, **{**SNAPSHOTS, **more})(apply)


snapshot_field("snap-l1-unaligned", "snap-l1-unaligned", "l1_table_offset",
               lambda p, s: s.l1_table_offset + 512, "a snapshot's L1 table between clusters")
snapshot_field("snap-l1-cap", "snap-l1-cap", "l1_size", 32 * MB // 8 + 1,
               "a snapshot's L1 table above 32 MiB")
snapshot_field("snap-l1-short", "snap-l1-short", "l1_size", lambda p, s: s.l1_size - 1,
               "a snapshot's L1 table one entry too short")
snapshot_field("snap-l1-size-zero", "snap-l1-short", "l1_size", 0,
               "a snapshot's L1 table of no entries")
snapshot_field("snap-l1-past-eof", "snap-l1-past-eof", "l1_table_offset",
               lambda p, s: p.past_end(), "a snapshot's L1 table behind the end of the file")
@damage("snap-l1-lost", "snap-l1-past-eof", **SNAPSHOTS)
def _(p):
    """a snapshot whose L1 table is overwritten and no longer pointed at"""
    snapshot = p.snapshot()
    p.put(snapshot.l1_table_offset, b"\xff" * p.cluster_size)
    p.set_snapshot(snapshot, "l1_table_offset", p.past_end())


snapshot_field("snap-id-size", "snap-entry-overrun", "id_size", 0xFFFF,
               "an id of 65535 letters", cluster_size=512)
snapshot_field("snap-time", "snap-time", "date_nsec", 1_000_000_000,
               "a snapshot's time with 10^9 nanoseconds", harmless=True)
snapshot_field("snap-extra-max", "snap-extra-cap", "extra_data_size", 0x7FFFFFFF,
               "extra data of 2 GiB in a snapshot")


@damage("snap-entry-overrun", "snap-entry-overrun", **SNAPSHOTS)
def _(p):
    """a snapshot table entry whose name runs out of the file"""
    last = p.snapshot() and p.snapshots[-1]
    p.truncate(p.append_clusters(b"\0") + p.cluster_size)
    table = p.append_clusters(p.read(p.header["snapshots_offset"], p.cluster_size))
    p.set_header(snapshots_offset=table)
    at, size = SNAPSHOT_ENTRY["name_size"]
    p.put_uint(table + last.place - p.header["snapshots_offset"] + at, size, 65535)


def rewritten(name, code, text, change, **more):
    """Registers a recipe that writes the whole table anew with `change` applied to one entry."""
    def apply(p):
        victim = p.snapshot()
        p.set_snapshot_table([p.snapshot_record(s, **(change(p, s) if s is victim else {}))
                              for s in p.snapshots])
    apply.__doc__ = text
    damage(name, code, **{**SNAPSHOTS, **more})(apply)


rewritten("snap-extra-short", "snap-extra-short", "a version 3 snapshot with 8 bytes of extra data",
          lambda p, s: {"extra": s.extra[:8]}, harmless=True)
rewritten("snap-extra-none", "snap-extra-short", "a version 3 snapshot without extra data",
          lambda p, s: {"extra": b""}, harmless=True)
rewritten("snap-extra-cap", "snap-extra-cap", "a snapshot with 1032 bytes of extra data",
          lambda p, s: {"extra": s.extra + bytes(1032 - len(s.extra))})
rewritten("snap-id-empty", "snap-id-empty", "a snapshot without id",
          lambda p, s: {"id_": b""}, harmless=True)
rewritten("snap-name-nul", "snap-name-nul", "a NUL in a snapshot's name",
          lambda p, s: {"name": b"a\0b"}, harmless=True)
rewritten("snap-vmstate-range", "snap-vmstate-range", "a VM state larger than the L1 table maps",
          lambda p, s: {"extra": (1 << 40).to_bytes(8, "big") + s.extra[8:]})


@damage("snap-id-duplicate", "snap-id-duplicate", harmless=True, **SNAPSHOTS)
def _(p):
    """two snapshots with one id"""
    if len(p.snapshots) < 2:
        raise Unfit("the image has no two snapshots")
    first = p.snapshots[0].id.encode()
    p.set_snapshot_table([p.snapshot_record(s, id_=first) for s in p.snapshots])


@damage("snap-data-file", "snap-data-file", content="data-file")
def _(p):
    """a snapshot in an image with a data file"""
    tables = b"".join(e.to_bytes(8, "big") for e in p.l1())
    l1 = p.append_clusters(tables)
    extra = bytes(8) + p.size.to_bytes(8, "big")
    values = {name: 0 for name in SNAPSHOT_ENTRY}
    values.update(l1_table_offset=l1, l1_size=p.header["l1_size"], id_size=1, name_size=1,
                  extra_data_size=len(extra))
    record = b"".join(values[name].to_bytes(size, "big")
                      for name, (_, size) in SNAPSHOT_ENTRY.items())
    p.set_header(snapshots_offset=p.append_clusters(record + extra + b"1s"), nb_snapshots=1)
    for index, table in p.used_l1():
        p.set_count(table >> p.cluster_bits, 2)
        p.put_uint(p.l1_place(index), 8, table)


# --- the tables of snapshots

def own_slots(p):
    """(snapshot, slot) of data in L2 tables that only one layer uses."""
    for snapshot in p.snapshots:
        for slot in p.slots(snapshot.id):
            if p.stored(slot.table >> p.cluster_bits) == 1 and p.state(slot) == "data":
                yield snapshot, slot


def inactive_entry(name, code, change, text, **more):
    def apply(p):
        _, slot = p.choose(own_slots(p), "table of a snapshot's own")
        p.set_slot(slot, change(p, slot))
    apply.__doc__ = text
    damage(name, *code, **{**SNAPSHOTS, **more})(apply)


inactive_entry("snap-l2-reserved", ("snap-l2-structure", "l2-entry-reserved"),
               lambda p, s: s.entry | 1 << 57, "a reserved bit in a snapshot's L2 table",
               harmless=True)
inactive_entry("snap-l2-unaligned", ("snap-l2-structure", "l2-entry-unaligned"),
               lambda p, s: s.entry | 512, "a snapshot's data cluster between clusters")
inactive_entry("snap-l2-past-eof", ("snap-l2-structure", "l2-entry-past-eof"),
               lambda p, s: copied(p.past_end()),
               "a snapshot's data cluster behind the end of the file")
inactive_entry("snap-data-on-metadata", ("snap-l2-structure", "l2-data-on-metadata"),
               lambda p, s: p.header["l1_table_offset"],
               "a snapshot's data cluster on the active L1 table")


@damage("snap-data-crosslink", "snap-l2-structure", "l2-data-crosslink", **SNAPSHOTS)
def _(p):
    """two guest clusters of a snapshot on one host cluster"""
    snapshot, slot = p.choose(own_slots(p), "table of a snapshot's own")
    other = p.slot("data", snapshot.id, lambda s: s.guest != slot.guest)
    p.set_slot(slot, other.entry & ~COPIED)


@damage("snap-l1-entry-past-eof", "snap-l2-structure", "l1-entry-past-eof", **SNAPSHOTS)
def _(p):
    """an L2 table of a snapshot behind the end of the file"""
    snapshot = p.snapshot()
    index, _ = p.choose(p.used_l1(snapshot.id), "L2 table")
    p.put_uint(p.l1_place(index, snapshot.id), 8, p.past_end())


@damage("cross-layer-alias", "cross-layer-alias", **SNAPSHOTS)
def _(p):
    """a host cluster that the disk and a snapshot map at different guest offsets"""
    _, slot = p.choose(own_slots(p), "table of a snapshot's own")
    layers = [name for name, _, _ in p.layers()]
    here = {s.entry & OFFSET_MASK for s in p.slots(slot.layer)}
    other = p.choose((s for name in layers if name != slot.layer for s in p.slots(name)
                      if p.state(s) == "data" and s.guest != slot.guest
                      and s.entry & OFFSET_MASK not in here), "cluster of another layer")
    p.set_slot(slot, other.entry & ~COPIED)
