# SPDX-License-Identifier: Apache-2.0
"""An independent, minimal reader of qcow2: header, extensions, L1/L2, snapshots, bitmaps, LUKS area
and refcounts, each with its place in the file. It is the oracle that imgfsck is compared with and
the eyes of the damage recipes, so it shares no code and no assumption with the C++ side. It reads
sound images, and damaged ones as far as the damage lets it; it never writes."""
import os
import re
import struct
from collections import namedtuple

MAGIC = 0x514649FB
COPIED = 1 << 63
COMPRESSED = 1 << 62
ZERO = 1
OFFSET_MASK = 0x00FFFFFFFFFFFE00
INCOMPAT_DIRTY, INCOMPAT_CORRUPT, INCOMPAT_DATA_FILE = 1, 2, 4
INCOMPAT_COMPRESSION, INCOMPAT_EXTENDED_L2 = 8, 16
EXT_END, EXT_BACKING_FORMAT, EXT_FEATURES = 0, 0xE2792ACA, 0x6803F857
EXT_BITMAPS, EXT_CRYPTO, EXT_DATA_FILE = 0x23852875, 0x0537BE77, 0x44415441

# name: (offset, size in bytes)
HEADER = {
    "magic": (0, 4), "version": (4, 4), "backing_file_offset": (8, 8),
    "backing_file_size": (16, 4), "cluster_bits": (20, 4), "size": (24, 8),
    "crypt_method": (32, 4), "l1_size": (36, 4), "l1_table_offset": (40, 8),
    "refcount_table_offset": (48, 8), "refcount_table_clusters": (56, 4), "nb_snapshots": (60, 4),
    "snapshots_offset": (64, 8), "incompatible_features": (72, 8), "compatible_features": (80, 8),
    "autoclear_features": (88, 8), "refcount_order": (96, 4), "header_length": (100, 4),
    "compression_type": (104, 1),
}
V2_IMPLIED = {"incompatible_features": 0, "compatible_features": 0, "autoclear_features": 0,
              "refcount_order": 4, "header_length": 72, "compression_type": 0}
# name: (offset in the directory entry, size in bytes)
BITMAP_ENTRY = {"table_offset": (0, 8), "table_size": (8, 4), "flags": (12, 4), "type": (16, 1),
                "granularity_bits": (17, 1), "name_size": (18, 2), "extra_size": (20, 4)}
SNAPSHOT_ENTRY = {"l1_table_offset": (0, 8), "l1_size": (8, 4), "id_size": (12, 2),
                  "name_size": (14, 2), "date_sec": (16, 4), "date_nsec": (20, 4),
                  "vm_clock_nsec": (24, 8), "vm_state_size": (32, 4), "extra_data_size": (36, 4)}

Extension = namedtuple("Extension", "place type length data")  # place: of the record
# One L2 entry: where it lies, what it says, what it maps.
Slot = namedtuple("Slot", "place entry bitmap guest table layer l1_index")
# One claim on a host cluster. kind as in the SQL model; layer "active" or a snapshot's id.
Claim = namedtuple("Claim", "kind layer guest")


def unpack(fields, data):
    """Big-endian fields of a record, by name."""
    return {name: int.from_bytes(data[at:at + size], "big") for name, (at, size) in fields.items()}


def div_up(value, unit):
    return -(-value // unit)


class Snapshot:
    """An entry of the snapshot table. `place` is its offset in the file, `bytes` its raw record
    without the padding behind it."""

    def __init__(self, place, read):
        self.place = place
        fixed = read(place, 40)
        self.fields = unpack(SNAPSHOT_ENTRY, fixed)
        self.l1_table_offset = self.fields["l1_table_offset"]
        self.l1_size = self.fields["l1_size"]
        extra_size = self.fields["extra_data_size"]
        self.extra = read(place + 40, extra_size)
        names = place + 40 + extra_size
        self.id = read(names, self.fields["id_size"]).decode("latin-1")
        self.name = read(names + self.fields["id_size"],
                         self.fields["name_size"]).decode("latin-1")
        self.bytes = read(place, 40 + extra_size + len(self.id) + len(self.name))
        self.vm_state_size = self.fields["vm_state_size"]
        self.disk_size = None
        if extra_size >= 8:
            self.vm_state_size = int.from_bytes(self.extra[:8], "big")
        if extra_size >= 16:
            self.disk_size = int.from_bytes(self.extra[8:16], "big")


class Bitmap:
    """An entry of the bitmap directory."""

    def __init__(self, place, read):
        self.place = place
        self.fields = unpack(BITMAP_ENTRY, read(place, 24))
        self.table_offset = self.fields["table_offset"]
        self.table_size = self.fields["table_size"]
        length = 24 + self.fields["extra_size"] + self.fields["name_size"]
        self.name = read(place + length - self.fields["name_size"], self.fields["name_size"])
        self.bytes = read(place, length)
        self.padded_size = div_up(length, 8) * 8
        table = read(self.table_offset, self.table_size * 8)
        self.table = list(struct.unpack(f">{self.table_size}Q", table))


class Qcow2:
    def __init__(self, path):
        self.path = str(path)
        self.fd = os.open(path, os.O_RDONLY)
        self.load()

    def close(self):
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def read(self, offset, length):
        """Bytes of the file; past its end zeros."""
        data = os.pread(self.fd, length, offset) if length else b""
        return data + bytes(length - len(data))

    def u64(self, offset):
        return int.from_bytes(self.read(offset, 8), "big")

    def load(self):
        self.file_size = os.fstat(self.fd).st_size
        head = self.read(0, 112)
        self.header = unpack(HEADER, head)
        if self.header["version"] == 2:
            self.header.update(V2_IMPLIED)
        elif self.header["header_length"] <= 104:
            self.header["compression_type"] = 0
        self.cluster_bits = self.header["cluster_bits"]
        self.cluster_size = 1 << self.cluster_bits
        self.size = self.header["size"]
        incompatible = self.header["incompatible_features"]
        self.extended_l2 = bool(incompatible & INCOMPAT_EXTENDED_L2)
        self.data_file = bool(incompatible & INCOMPAT_DATA_FILE)
        self.l2_entry_size = 16 if self.extended_l2 else 8
        self.l2_entries = self.cluster_size // self.l2_entry_size
        self.refcount_bits = 1 << self.header["refcount_order"]
        self.refcounts_per_block = self.cluster_size * 8 // self.refcount_bits
        self.extensions = self.load_extensions()
        self.snapshots = self.load_snapshots()
        self.bitmaps = self.load_bitmaps()

    def load_extensions(self):
        place, found = self.header["header_length"], []
        end = self.header["backing_file_offset"] or self.cluster_size
        while place + 8 <= end:
            kind, length = struct.unpack(">II", self.read(place, 8))
            if kind == EXT_END or place + 8 + length > end:
                break
            found.append(Extension(place, kind, length, self.read(place + 8, length)))
            place += 8 + div_up(length, 8) * 8
        return found

    def extension(self, kind):
        return next((e for e in self.extensions if e.type == kind), None)

    def load_snapshots(self):
        place, found = self.header["snapshots_offset"], []
        for _ in range(self.header["nb_snapshots"]):
            found.append(Snapshot(place, self.read))
            place += div_up(len(found[-1].bytes), 8) * 8
        return found

    def load_bitmaps(self):
        extension = self.extension(EXT_BITMAPS)
        if not extension or extension.length != 24:
            return []
        count, _, size, place = struct.unpack(">IIQQ", extension.data)
        found, end = [], place + size
        while len(found) < count and place + 24 <= end:
            found.append(Bitmap(place, self.read))
            place += found[-1].padded_size
        return found

    # --- mapping

    def layers(self):
        """(layer, place of its L1, entries in it) of the active disk and every snapshot."""
        yield "active", self.header["l1_table_offset"], self.header["l1_size"]
        for snapshot in self.snapshots:
            yield snapshot.id, snapshot.l1_table_offset, snapshot.l1_size

    def l1(self, layer="active"):
        for name, place, size in self.layers():
            if name == layer:
                return list(struct.unpack(f">{size}Q", self.read(place, size * 8)))
        raise KeyError(layer)

    def table_slots(self, table, l1_index=0, layer="active"):
        """The entries of the L2 table at `table` that are not all zero."""
        data, width = self.read(table, self.cluster_size), self.l2_entry_size
        for index in range(self.l2_entries):
            entry = int.from_bytes(data[index * width:index * width + 8], "big")
            bitmap = int.from_bytes(data[index * width + 8:(index + 1) * width], "big")
            if entry or bitmap:
                guest = (l1_index * self.l2_entries + index) * self.cluster_size
                yield Slot(table + index * width, entry, bitmap, guest, table, layer, l1_index)

    def slots(self, layer="active"):
        for index, entry in enumerate(self.l1(layer)):
            if entry & OFFSET_MASK:
                yield from self.table_slots(entry & OFFSET_MASK, index, layer)

    def state(self, slot):
        """'data', 'zero' (with or without a host cluster), 'compressed' or 'unallocated'."""
        if slot.entry & COMPRESSED:
            return "compressed"
        if slot.entry & ZERO and not self.extended_l2:
            return "zero"
        if slot.entry & OFFSET_MASK or self.data_file and slot.entry & COPIED:
            return "data"
        return "zero" if slot.bitmap >> 32 else "unallocated"

    def host(self, slot):
        return slot.entry & OFFSET_MASK

    def compressed_span(self, entry):
        """(byte offset of the stream, readable bytes)."""
        x = 62 - (self.cluster_bits - 8)
        offset = entry & ((1 << x) - 1)
        sectors = (entry >> x) & ((1 << (self.cluster_bits - 8)) - 1)
        return offset, (sectors + 1) * 512 - (offset & 511)

    # --- refcounts

    def refcount_table(self):
        """The entries of the refcount table as they stand."""
        count = self.header["refcount_table_clusters"] * self.cluster_size // 8
        data = self.read(self.header["refcount_table_offset"], count * 8)
        return list(struct.unpack(f">{count}Q", data))

    def refcount_block(self, cluster):
        """Offset of the block that counts `cluster`, or 0."""
        index = cluster // self.refcounts_per_block
        table = self.header["refcount_table_offset"]
        if index * 8 >= self.header["refcount_table_clusters"] * self.cluster_size:
            return 0
        return self.u64(table + index * 8) & OFFSET_MASK

    def refcount_place(self, cluster):
        """(byte offset, first bit from the least significant, bits) of a stored count."""
        index, bits = cluster % self.refcounts_per_block, self.refcount_bits
        block = self.refcount_block(cluster)
        if not block:
            return None
        if bits >= 8:
            return block + index * bits // 8, 0, bits
        return block + index * bits // 8, index * bits % 8, bits

    def stored(self, cluster):
        place = self.refcount_place(cluster)
        if place is None:
            return 0
        offset, shift, bits = place
        if bits >= 8:
            return int.from_bytes(self.read(offset, bits // 8), "big")
        return (self.read(offset, 1)[0] >> shift) & ((1 << bits) - 1)

    def stored_counts(self):
        """Every stored count that is not zero, by cluster."""
        bits, found = self.refcount_bits, {}
        for block_index, entry in enumerate(self.refcount_table()):
            if not entry & OFFSET_MASK:
                continue
            first = block_index * self.refcounts_per_block
            block = self.read(entry & OFFSET_MASK, self.cluster_size)
            # Blocks are mostly zeros and may be large: look only where a byte is not.
            for match in re.finditer(rb"[^\0]", block):
                at = match.start()
                if bits >= 8:
                    width = bits // 8
                    at -= at % width
                    found[first + at // width] = int.from_bytes(block[at:at + width], "big")
                    continue
                for index in range(8 // bits):
                    count = (block[at] >> (index * bits)) & ((1 << bits) - 1)
                    if count:
                        found[first + at * 8 // bits + index] = count
        return found
