# SPDX-License-Identifier: Apache-2.0
"""Damage that people have met in the field, each with where it was reported: what was wrong in
their images is made anew in one of ours. Used by tests/fixtures.py and tests/comparison.py."""
from collections import namedtuple

from imglib.make import Recipe
from imglib.patient import RECIPES, Patient, copied
from imglib.programs import qemu_img
from imglib.qcow2 import EXT_BITMAPS, OFFSET_MASK

# what: in one line, for people. origin: where it was met. options: for imgfsck.
# grown: the disk's size, where it is not the base's.
Incident = namedtuple("Incident", "name what origin base options apply grown", defaults=(None,))
INCIDENTS = {}


def incident(name, origin, options=(), grown=None, **base):
    def register(function):
        assert name not in INCIDENTS, name
        what = " ".join(function.__doc__.split())
        INCIDENTS[name] = Incident(name, what, origin, Recipe(**base), options, function, grown)
        return function
    return register


def as_recipe(name, origin, recipe, what):
    """An incident that a named damage already makes."""
    known = RECIPES[recipe]
    INCIDENTS[name] = Incident(name, what, origin, known.base, known.options, known.apply)


def strike(name, path):
    """Lets the incident happen to a sound image made from its base."""
    if INCIDENTS[name].grown:
        qemu_img("resize", "-q", "-f", "qcow2", path, INCIDENTS[name].grown)
    patient = Patient(path, f"incident {name}")
    try:
        INCIDENTS[name].apply(patient)
    finally:
        patient.close()


def counts_as_bytes(p):
    """What a refcount block looks like: 16-bit numbers of 0, 1 and 2."""
    numbers = (p.random.choice((0, 1, 1, 1, 2)) for _ in range(p.cluster_size // 2))
    return b"".join(n.to_bytes(2, "big") for n in numbers)


def lines_of_a_log(p, length):
    text = b""
    while len(text) < length:
        text += b"Mar  3 04:%02d:%02d vm kernel: [%d] EXT4-fs (vda1): mounted filesystem\n" % (
            p.random.randrange(60), p.random.randrange(60), p.random.randrange(10 ** 6))
    return text[:length]


# --- lost mapping tables

@incident("l2-under-counts", "cloud-hypervisor 8606")
def _(p):
    """mapping tables overwritten by refcount blocks and by guest data; one of them has an older copy
    in a free cluster"""
    first, second = p.used_l1()[0][1], p.used_l1()[-1][1]
    p.append_clusters(p.read(first, p.cluster_size), counted=False)
    p.put(first, counts_as_bytes(p))
    p.put(second, p.random.randbytes(p.cluster_size))


@incident("l2-holed", "cloud-hypervisor 8624")
def _(p):
    """a mapping table that became zeros, its count and all other metadata being right"""
    _, table = p.used_l1()[0]
    p.put(table, bytes(p.cluster_size))


@incident("data-holed", "cloud-hypervisor 8624", options=("--deep",), cluster_size=65536)
def _(p):
    """a data cluster that became a hole of the file, all metadata being right"""
    RECIPES["data-hole"].apply(p)


@incident("l2-counted-free", "cloud-hypervisor 8637, 8721, 8748")
def _(p):
    """mapping tables in use that are counted as free, so that the next write overwrites them"""
    for _, table in p.used_l1()[:2]:
        p.set_count(table >> p.cluster_bits, 0)


@incident("l2-counted-free-and-reused", "cloud-hypervisor 8637, 8721, 8748")
def _(p):
    """a mapping table that was counted as free and then given to guest data"""
    _, table = p.used_l1()[0]
    other = p.used_l1()[1][0]
    slot = p.slot(where=lambda s: s.guest >= other * p.l2_entries * p.cluster_size)
    p.put(table, p.read(p.host(slot), p.cluster_size))
    p.set_count(p.host(slot) >> p.cluster_bits, 0)
    p.set_slot(slot, copied(table))


@incident("l1-under-guest", "OpenNebula 1585, UTM 3311")
def _(p):
    """the top table moved by a resize while the VM ran: guest data was written over it, the table as
    it was before lies in a free cluster"""
    old = p.header["l1_table_offset"]
    p.append_clusters(p.read(old, p.cluster_size), counted=False)
    p.put(old, p.random.randbytes(p.cluster_size))


# --- clusters with two owners

@incident("crosslink-of-a-race", "QEMU, write against discard, fixed 2026")
def _(p):
    """two guest clusters on one host cluster, both saying that it is theirs alone; the cluster that
    one of them had is free"""
    first, second = p.two_slots()
    p.set_slot(second, first.entry)
    p.set_count(p.host(second) >> p.cluster_bits, 0)


@incident("l2-twice-and-counts-lost", "Docker for Mac 819, 1062, 1147")
def _(p):
    """one mapping table for two ranges, and counts that were never kept"""
    used = p.used_l1()
    p.put_uint(p.l1_place(used[1][0]), 8, copied(used[0][1]))
    for slot in p.slots():
        if p.state(slot) == "data":
            p.set_count(p.host(slot) >> p.cluster_bits, 0)


as_recipe("l1-twice", "Docker for Mac 1147", "l1-entry-duplicate", "one mapping table for two ranges")


# --- headers, counts, flags

@incident("first-cluster-log", "cloud-hypervisor 8358", options=("--format", "qcow2"),
          cluster_size=65536)
def _(p):
    """the first 64 KiB overwritten by lines of a guest's log"""
    p.put(0, lines_of_a_log(p, 65536))


@incident("copied-flags-missing", "cloud-hypervisor 7526")
def _(p):
    """no COPIED flag in the top table"""
    for index, table in p.used_l1():
        p.put_uint(p.l1_place(index), 8, table)


@incident("count-table-bit-63", "tcmu-runner 223")
def _(p):
    """bit 63 set in the entries of the refcount table"""
    for index, entry in enumerate(p.refcount_table()):
        if entry:
            p.put_uint(p.header["refcount_table_offset"] + index * 8, 8, copied(entry))


@incident("count-blocks-leaked", "cloud-hypervisor 7537, 8597")
def _(p):
    """refcount blocks left behind, one for each flush"""
    block = p.read(p.refcount_table()[0] & OFFSET_MASK, p.cluster_size)
    for _ in range(5):
        place = p.append_clusters(block)
        p.claims.by_cluster.setdefault(place >> p.cluster_bits, [])


@incident("counts-far-away", "qcow2-dump 2: File too large", grown="16T", cluster_size=65536)
def _(p):
    """a disk of 16 TiB with a lost refcount block, and a mapping entry that leads far beyond the
    file"""
    p.set_slot(p.slot(), copied(1 << 50))
    p.put_uint(p.header["refcount_table_offset"], 8, 0)


@incident("dirty-and-stale", "multipass 3399")
def _(p):
    """not shut down cleanly: the dirty bit is set, and counts are out of date"""
    p.set_header_bits("incompatible_features", 1)
    p.set_header_bits("compatible_features", 1)
    slots = [s for s in p.slots() if p.state(s) == "data"]
    for slot in p.random.sample(slots, 5):
        p.set_count(p.host(slot) >> p.cluster_bits, 0)
    for _ in range(2):
        p.append_clusters(bytes(p.cluster_size))


as_recipe("count-table-beyond-file", "go-qcow2 2", "rt-past-eof",
          "a refcount table beyond the end of the file")


# --- single entries

as_recipe("entry-just-outside", "Docker for Mac 1315, 1318", "l2-entry-past-eof",
          "a mapping entry that leads to the first cluster behind the file")
as_recipe("entry-far-away", "QEMU", "l2-entry-far", "a mapping entry that leads far beyond the file")
as_recipe("entry-unaligned", "QEMU", "l2-entry-unaligned",
          "a mapping entry that leads between clusters")


@incident("zeroed-and-not-given-back", "openvmm 4347")
def _(p):
    """clusters of zeros that were replaced, their old space never given back"""
    for slot in p.random.sample([s for s in p.slots() if p.state(s) == "data"], 3):
        place = p.append_clusters(p.random.randbytes(p.cluster_size))
        p.set_slot(slot, copied(place))
        p.put(p.host(slot), bytes(p.cluster_size))


@incident("compressed-behind-the-end", "colima 961", content="zlib")
def _(p):
    """a compressed cluster cut off by the end of the file"""
    RECIPES["compr-past-eof"].apply(p)


as_recipe("compressed-bit-flip", "cloud-hypervisor 7639", "compr-undecodable",
          "a compressed cluster with flipped bits")


@incident("paused-copy", "cloud-hypervisor 8607")
def _(p):
    """a copy of a running VM's image: data at the end that nothing refers to and nothing counts"""
    p.append_clusters(p.random.randbytes(6 * p.cluster_size), counted=False)


# --- snapshots

as_recipe("snapshot-extra-huge", "multipass 2321", "snap-extra-max",
          "the extra data of a snapshot said to be 2 GiB long")
as_recipe("snapshots-forgotten", "multipass 2321", "snap-undercount-zero",
          "a header that says there are no snapshots, although there are")
as_recipe("snapshot-l1-size-zero", "multipass 2321", "snap-l1-size-zero",
          "a snapshot whose top table is said to be empty")
as_recipe("snapshot-id-overrun", "multipass 2321", "snap-id-size",
          "a snapshot whose id is said to reach behind the table")


# --- bitmaps

as_recipe("bitmap-list-ones", "QEMU, oVirt", "bitmap-dir-ones",
          "the list of dirty bitmaps overwritten by ones")
as_recipe("bitmap-not-closed", "qmpbackup 25, virtnbdbackup 145", "bitmap-in-use",
          "a dirty bitmap left in use by a crash")
as_recipe("bitmap-mark-lost", "OpenNebula 7092", "bitmap-auto-unset",
          "dirty bitmaps that an older program did not keep up")


@incident("bitmaps-leaked", "vdsm 354", content="bitmaps")
def _(p):
    """bitmaps lost on a full disk: the list is gone, its clusters are still counted"""
    p.set_extensions([(k, d) for k, d in p.extension_list() if k != EXT_BITMAPS])
    p.set_header(autoclear_features=p.header["autoclear_features"] & ~1)


# --- what is odd and legal, and must not be called damage

@incident("legal-count-table", "cloud-hypervisor 5034, 5080, 6349")
def _(p):
    """a refcount table far longer than the image needs"""
    old = p.header["refcount_table_offset"]
    table = p.append_clusters(p.read(old, p.cluster_size) + bytes(4 * p.cluster_size))
    p.set_header(refcount_table_offset=table, refcount_table_clusters=5)
    p.set_count(old >> p.cluster_bits, 0)
    p.put(old, bytes(p.cluster_size))


@incident("legal-short-tail", "ocaml-qcow 7")
def _(p):
    """a last cluster stored as one sector"""
    place = p.append_clusters(p.random.randbytes(512))
    p.put_uint(p.empty_slot_place()[0], 8, copied(place))
    p.truncate(place + 512)


@incident("legal-zero-clusters", "QEMU")
def _(p):
    """clusters of zeros without a place in the file"""
    for slot in p.random.sample([s for s in p.slots() if p.state(s) == "data"], 2):
        p.set_slot(slot, 1)
        p.set_count(p.host(slot) >> p.cluster_bits, 0)


@incident("legal-v2-snapshots", "QEMU", content="snapshots", compat="v2")
def _(p):
    """snapshots with extra data in a version 2 image"""
    assert all(len(s.extra) >= 16 for s in p.snapshots)
