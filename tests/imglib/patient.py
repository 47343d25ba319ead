# SPDX-License-Identifier: Apache-2.0
"""A qcow2 opened for damaging, and the register of the ways to damage it. A recipe says what it
does in its docstring, which finding it must raise, and which image it needs."""
import os
import random
from collections import namedtuple

from imglib.claims import Claims
from imglib.make import Recipe
from imglib.qcow2 import (BITMAP_ENTRY, COPIED, EXT_BITMAPS, EXT_CRYPTO, HEADER, OFFSET_MASK,
                          SNAPSHOT_ENTRY, Qcow2, div_up)

# codes: any one of them must be found (without the format's prefix).
# harmless: only counts, flags or reserved bits are touched, so the guest's bytes stay what they are
#           through damage and repair.
# options: what imgfsck needs on its command line to see it.
Damage = namedtuple("Damage", "name codes base harmless options text apply")
RECIPES = {}


def damage(name, *codes, harmless=False, options=(), **base):
    """Registers the function below it as a way to damage an image made as `base` says."""
    def register(function):
        assert name not in RECIPES, name
        RECIPES[name] = Damage(name, codes, Recipe(**base), harmless, options,
                               " ".join(function.__doc__.split()), function)
        return function
    return register


class Unfit(Exception):
    """The image has nothing that could be damaged in this way."""


class Patient(Qcow2):
    """Reads what it needs to know from `sound`, an undamaged copy, where there is one: so an image
    can be damaged again and again. Else from the image itself, which must still be sound."""

    def __init__(self, path, seed=1, sound=None):
        self.random = random.Random(seed)
        super().__init__(sound or path)
        self.path = str(path)
        self.out = os.open(path, os.O_WRONLY)
        self.claims = Claims(self)

    def close(self):
        super().close()
        if self.out >= 0:
            os.close(self.out)
            self.out = -1

    def must_suit(self, content):
        """Raises Unfit where a recipe for such images would damage something else."""
        for needed, there in (("extended-l2", self.extended_l2), ("data-file", self.data_file),
                              ("luks", self.extension(EXT_CRYPTO))):
            if content.startswith(needed) and not there:
                raise Unfit(f"the image has no {needed}")

    # --- writing

    def put(self, offset, data):
        done = os.pwrite(self.out, data, offset)
        assert done == len(data)

    def put_uint(self, offset, size, value):
        if not 0 <= value < 1 << 8 * size:
            raise Unfit(f"{value} does not fit {size} bytes")
        self.put(offset, value.to_bytes(size, "big"))

    def truncate(self, size):
        os.ftruncate(self.out, size)

    def set_header(self, **fields):
        for name, value in fields.items():
            self.put_uint(*HEADER[name], value)

    def set_header_bits(self, name, bits):
        self.set_header(**{name: self.header[name] | bits})

    def set_slot(self, slot, entry, bitmap=None):
        self.put_uint(slot.place, 8, entry)
        if bitmap is not None:
            self.put_uint(slot.place + 8, 8, bitmap)

    def set_count(self, cluster, value):
        place = self.refcount_place(cluster)
        if place is None:
            raise Unfit("no refcount block counts that cluster")
        offset, shift, bits = place
        if value >= 1 << bits:
            raise Unfit(f"counts have {bits} bits")
        if bits < 8:
            rest = self.read(offset, 1)[0] & ~(((1 << bits) - 1) << shift)
            self.put(offset, bytes([rest | value << shift]))
        else:
            self.put_uint(offset, bits // 8, value)

    def set_snapshot(self, snapshot, name, value):
        at, size = SNAPSHOT_ENTRY[name]
        self.put_uint(snapshot.place + at, size, value)

    def set_bitmap(self, bitmap, name, value):
        at, size = BITMAP_ENTRY[name]
        self.put_uint(bitmap.place + at, size, value)

    def append_clusters(self, data, counted=True):
        """Puts data in clusters behind everything; returns its offset."""
        offset = max(div_up(os.fstat(self.fd).st_size, self.cluster_size) * self.cluster_size,
                     self.claims.allocated_end())
        clusters = div_up(max(len(data), 1), self.cluster_size)
        self.put(offset, data + bytes(clusters * self.cluster_size - len(data)))
        for cluster in range(clusters if counted else 0):
            self.set_count(offset // self.cluster_size + cluster, 1)
        return offset

    def set_extensions(self, extensions, backing_name=None):
        """Writes the extension area anew from (type, data) pairs, the backing name behind it."""
        if backing_name is None and self.header["backing_file_offset"]:
            backing_name = self.read(self.header["backing_file_offset"],
                                     self.header["backing_file_size"])
        start, area = self.header["header_length"], b""
        for kind, data in list(extensions) + [(0, b"")]:
            area += kind.to_bytes(4, "big") + len(data).to_bytes(4, "big")
            area += data + bytes(-len(data) % 8)
        if backing_name:
            self.set_header(backing_file_offset=start + len(area),
                            backing_file_size=len(backing_name))
            area += backing_name
        if start + len(area) > self.cluster_size:
            raise Unfit("cluster 0 has no room for that")
        self.put(start, area + bytes(self.cluster_size - start - len(area)))

    def extension_list(self):
        return [(e.type, e.data) for e in self.extensions]

    def change_extension(self, kind, data):
        """The same area with other data in one extension."""
        if not self.extension(kind):
            raise Unfit("the image has no such extension")
        self.set_extensions([(k, data if k == kind else d) for k, d in self.extension_list()])

    def snapshot_record(self, snapshot, extra=None, id_=None, name=None, **fields):
        """The bytes of a snapshot table entry like `snapshot`, with changes, padded."""
        extra = snapshot.extra if extra is None else extra
        id_ = snapshot.id.encode() if id_ is None else id_
        name = snapshot.name.encode() if name is None else name
        values = {**snapshot.fields, **fields, "extra_data_size": len(extra),
                  "id_size": len(id_), "name_size": len(name)}
        fixed = b"".join(values[field].to_bytes(size, "big")
                         for field, (_, size) in SNAPSHOT_ENTRY.items())
        return fixed + extra + id_ + name + bytes(-len(fixed + extra + id_ + name) % 8)

    def set_snapshot_table(self, records):
        """A new table in place of the old one, which must have the room."""
        table = b"".join(records)
        last = self.snapshots[-1]
        room = div_up(last.place + len(last.bytes) - self.header["snapshots_offset"],
                      self.cluster_size) * self.cluster_size
        if len(table) > room:
            raise Unfit("the snapshot table has no room for that")
        self.put(self.header["snapshots_offset"], table + bytes(room - len(table)))
        self.set_header(nb_snapshots=len(records))

    # --- choosing

    def choose(self, things, what):
        things = list(things)
        if not things:
            raise Unfit(f"the image has no {what}")
        return self.random.choice(things)

    def slot(self, state="data", layer="active", where=lambda slot: True):
        """A random L2 entry in that state."""
        return self.choose((s for s in self.slots(layer)
                            if self.state(s) == state and where(s)), f"{state} cluster there")

    def two_slots(self, state="data", layer="active"):
        first = self.slot(state, layer)
        return first, self.slot(state, layer, lambda s: s.guest != first.guest)

    def empty_slot_place(self):
        """(place, guest) of an L2 entry that maps nothing, in a table in use."""
        width = self.l2_entry_size
        used = {slot.place for slot in self.slots()}
        found = []
        for index, table in self.used_l1():
            for number in range(self.l2_entries):
                guest = (index * self.l2_entries + number) * self.cluster_size
                if table + number * width not in used and guest < self.size:
                    found.append((table + number * width, guest))
        return self.choose(found, "unallocated cluster")

    def used_l1(self, layer="active"):
        """(index, table) of the L1 entries in use."""
        return [(index, entry & OFFSET_MASK) for index, entry in enumerate(self.l1(layer))
                if entry & OFFSET_MASK]

    def l1_place(self, index, layer="active"):
        start = next(place for name, place, _ in self.layers() if name == layer)
        return start + index * 8

    def cluster_of(self, kind, where=lambda claims: True):
        """A random cluster that something of this kind claims."""
        return self.choose((cluster for cluster, claims in self.claims.by_cluster.items()
                            if any(c.kind == kind for c in claims) and where(claims)), kind)

    def snapshot(self):
        return self.choose(self.snapshots, "snapshot")

    def bitmap(self, where=lambda bitmap: True):
        return self.choose((b for b in self.bitmaps if where(b)), "bitmap of that kind")

    def bitmap_extension(self):
        extension = self.extension(EXT_BITMAPS)
        if not extension:
            raise Unfit("the image has no bitmaps")
        return extension

    def luks_offset(self):
        extension = self.extension(EXT_CRYPTO)
        if not extension:
            raise Unfit("the image has no LUKS header")
        return int.from_bytes(extension.data[:8], "big")

    def past_end(self, clusters=10):
        """A cluster-aligned offset behind the end of the file."""
        return (div_up(self.file_size, self.cluster_size) + clusters) * self.cluster_size


def apply(name, path, seed=1, sound=None):
    """Damages the image; raises Unfit when it cannot be damaged in this way."""
    patient = Patient(path, f"{seed} {name}", sound)
    try:
        patient.must_suit(RECIPES[name].base.content)
        RECIPES[name].apply(patient)
    finally:
        patient.close()


def copied(offset):
    return offset | COPIED
