# SPDX-License-Identifier: Apache-2.0
"""VHDs in memory, independently of the product: made as other programs lay them out, edited field by
field, and read both as the specification says and as QEMU does."""
import struct

SECTOR = 512
UNALLOCATED = 0xFFFFFFFF
NOWHERE = 0xFFFFFFFFFFFFFFFF
FIXED, DYNAMIC, DIFFERENCING = 2, 3, 4
SATURATED = (65535, 16, 255)

FOOTER = struct.Struct(">8sIIQI4sI4sQQHBBII16sBB426s")
FOOTER_NAMES = ("cookie features version data_offset timestamp creator creator_version os "
                "original_size current_size cylinders heads sectors type checksum uuid saved hidden "
                "reserved").split()
HEADER = struct.Struct(">8sQQIIII16sI4s512s192s256s")
HEADER_NAMES = ("cookie next table version entries block_size checksum parent_id parent_time "
                "reserved1 parent_name locators reserved2").split()
LOCATOR = struct.Struct(">4sIIIQ")
BATMAP = struct.Struct(">8sQIIIB65s418s")
BATMAP_NAMES = "cookie offset sectors version checksum marker key reserved".split()
assert FOOTER.size == 512 and HEADER.size == 1024 and BATMAP.size == 512


def checksum(data):
    return ~sum(data) & 0xFFFFFFFF


def round_up(value, unit):
    return (value + unit - 1) // unit * unit


class Record:
    """A structure with named fields. pack() makes the checksum right unless told not to."""

    def __init__(self, layout, names, data):
        self.__dict__.update(_layout=layout, _names=names)
        self.__dict__.update(zip(names, layout.unpack(data)))

    def raw(self):
        return self._layout.pack(*(getattr(self, name) for name in self._names))

    def pack(self):
        self.checksum = 0
        self.checksum = checksum(self.raw())
        return self.raw()

    def sound(self):
        kept, self.checksum = self.checksum, 0
        right = checksum(self.raw())
        self.checksum = kept
        return right == kept


def footer_of(data):
    return Record(FOOTER, FOOTER_NAMES, bytes(data))


def header_of(data):
    return Record(HEADER, HEADER_NAMES, bytes(data))


def batmap_of(data):
    return Record(BATMAP, BATMAP_NAMES, bytes(data))


def geometry(sectors):
    """Cylinders, heads, sectors a track, as the specification's appendix computes them."""
    sectors = min(sectors, 65535 * 16 * 255)
    if sectors >= 65535 * 16 * 63:
        track, heads = 255, 16
    else:
        track = 17
        tracks = sectors // track
        heads = max((tracks + 1023) // 1024, 4)
        if tracks >= heads * 1024 or heads > 16:
            track, heads = 31, 16
            tracks = sectors // track
        if tracks >= heads * 1024:
            track, heads = 63, 16
    return sectors // track // heads, heads, track


def bitmap_bytes(block_size):
    return round_up(block_size // SECTOR // 8, SECTOR)


class Vhd:
    """The bytes of a file, and where its structures are when it is sound."""

    def __init__(self, data):
        self.data = bytearray(data)

    # --- structures of a sound file

    @property
    def end(self):
        """Offset of the trailing footer."""
        return len(self.data) - SECTOR

    @property
    def footer(self):
        return footer_of(self.data[self.end:])

    @property
    def header(self):
        at = self.footer.data_offset
        return header_of(self.data[at:at + 1024])

    def set_footer(self, where="both", seal=True, **fields):
        """Changes fields of the footer at the end, of its copy, or of both."""
        for place, at in (("end", self.end), ("copy", 0)):
            if where not in ("both", place) or (place == "copy" and self.data[:8] != b"conectix"):
                continue
            footer = footer_of(self.data[at:at + SECTOR])
            footer.__dict__.update(fields)
            self.data[at:at + SECTOR] = footer.pack() if seal else footer.raw()

    def set_header(self, seal=True, **fields):
        at = self.footer.data_offset
        header = self.header
        header.__dict__.update(fields)
        self.data[at:at + 1024] = header.pack() if seal else header.raw()

    def entry_at(self, index):
        return self.header.table + 4 * index

    def entry(self, index):
        at = self.entry_at(index)
        return int.from_bytes(self.data[at:at + 4], "big")

    def set_entry(self, index, value):
        at = self.entry_at(index)
        self.data[at:at + 4] = value.to_bytes(4, "big")

    def block(self, index):
        """Offset of a block's bitmap."""
        return self.entry(index) * SECTOR

    def stored(self):
        return [i for i in range(self.header.entries) if self.entry(i) != UNALLOCATED]

    def locators(self):
        data = self.header.locators
        return [list(LOCATOR.unpack(data[i:i + 24])) for i in range(0, 192, 24)]

    def set_locators(self, locators):
        self.set_header(locators=b"".join(LOCATOR.pack(*entry) for entry in locators))

    @property
    def batmap_at(self):
        return self.header.table + round_up(4 * self.header.entries, SECTOR)

    def set_batmap(self, **fields):
        at = self.batmap_at
        batmap = batmap_of(self.data[at:at + SECTOR])
        batmap.__dict__.update(fields)
        self.data[at:at + SECTOR] = batmap.raw()

    def insert(self, at, data):
        self.data[at:at] = data

    # --- reading, also of damaged files: None where a program would refuse

    def read(self, view="spec", parent=b""):
        """The disk as the specification has it, or as QEMU 7.2 shows it."""
        footer = self._footer_of_view(view)
        if footer is None:
            return None
        size = self._size(footer, view)
        if size > 1 << 30:
            return None
        if footer.type == FIXED and (view == "spec" or self.data[:8] != b"conectix"):
            return bytes(self.data[:size]).ljust(size, b"\0")
        at = footer.data_offset
        if at + 1024 > len(self.data) or self.data[at:at + 8] != b"cxsparse":
            return None
        return self.read_blocks(header_of(self.data[at:at + 1024]), size, view,
                                footer.type == DIFFERENCING, parent, strict=True)

    def _footer_of_view(self, view):
        copy = footer_of(self.data[:512].ljust(512, b"\0"))
        at = round_up(len(self.data), SECTOR) - SECTOR
        end = footer_of(bytes(self.data[at:at + 512]).ljust(512, b"\0"))
        if view == "qemu":
            footer = copy if copy.cookie == b"conectix" else end
            usable = footer is copy or footer.type == FIXED
            return footer if usable and footer.cookie == b"conectix" and footer.sound() else None
        for footer in (end, copy):
            if footer.cookie == b"conectix" and footer.sound():
                return footer
        return None

    @staticmethod
    def _size(footer, view):
        chs = footer.cylinders * footer.heads * footer.sectors * SECTOR
        saturated = (footer.cylinders, footer.heads, footer.sectors) == SATURATED
        if view == "qemu":
            by_size = footer.creator in (b"win ", b"qem2", b"d2v ", b"tap\0", b"CTXS")
        else:
            by_size = footer.creator not in (b"vpc ", b"qemu")
        return footer.current_size if by_size or saturated else chs

    def read_blocks(self, header, size, view, child, parent=b"", strict=False):
        """The disk by this header. strict: nothing when a block lies outside the file; else what
        is not there reads as zeros."""
        block_size = header.block_size
        if block_size < 512 or block_size & (block_size - 1):
            return None
        underneath = parent if child and view == "spec" else b""
        disk = bytearray(underneath[:size].ljust(size, b"\0"))
        bits = bitmap_bytes(block_size)
        for index in range(round_up(size, block_size) // block_size):
            at = header.table + 4 * index
            if strict and (index >= header.entries or at + 4 > len(self.data)):
                return None
            start = int.from_bytes(self.data[at:at + 4].ljust(4, b"\xff"), "big") * SECTOR
            if start == UNALLOCATED * SECTOR:
                continue
            if strict and start + bits + block_size > len(self.data):
                return None
            block = bytes(self.data[start:start + bits + block_size])
            self._put_block(disk, index * block_size, block.ljust(bits + block_size, b"\0"), bits,
                            view == "qemu", child)
        return bytes(disk[:size])

    @staticmethod
    def _put_block(disk, guest, block, bits, every_bit, child):
        for sector in range(min(len(block) - bits, len(disk) - guest) // SECTOR):
            written = every_bit or block[sector // 8] & 0x80 >> sector % 8
            at, to = bits + sector * SECTOR, guest + sector * SECTOR
            if written:
                disk[to:to + SECTOR] = block[at:at + SECTOR]
            elif not child:
                disk[to:to + SECTOR] = bytes(SECTOR)


def utf16(text, order="le"):
    return text.encode("utf-16-" + order)


class Writer:
    """Lays a disk out as one of the programs below does."""
    # creator, its version, host, geometry saturated, 4 KiB-aligned data, byte that fills the table,
    # all bits set whatever was written, batmap
    PROGRAMS = {
        "qemu": (b"qemu", 0x00050003, b"Wi2k", False, False, 0xFF, True, False),
        "qem2": (b"qem2", 0x00050003, b"Wi2k", True, False, 0xFF, True, False),
        "vpc": (b"vpc ", 0x00010000, b"Wi2k", False, False, 0xFF, False, False),
        "win": (b"win ", 0x00060003, b"Wi2k", False, False, 0xFF, False, False),
        "d2v": (b"d2v\0", 0x00010000, b"Wi2k", True, False, 0x00, True, False),
        "tap": (b"tap\0", 0x00010003, bytes(4), False, True, 0x00, False, True),
    }

    def __init__(self, program, size, block_size, seed, parent=None):
        """parent: (name, id, time) makes a differencing disk."""
        (self.creator, self.version, self.host, self.saturated, self.aligned, self.fill,
         self.all_bits, self.has_batmap) = self.PROGRAMS[program]
        self.block_size, self.seed, self.parent = block_size, seed, parent
        sectors = round_up(size, SECTOR) // SECTOR
        self.geometry = SATURATED if self.saturated else geometry(sectors)
        if program in ("qemu", "vpc"):  # whose disks are as large as their geometry
            c, h, s = self.geometry
            sectors = c * h * s
        self.size = sectors * SECTOR
        self.entries = round_up(self.size, block_size) // block_size

    def footer(self, kind):
        footer = footer_of(bytes(512))
        cylinders, heads, sectors = self.geometry
        footer.__dict__.update(
            cookie=b"conectix", features=2, version=0x10000, timestamp=500000000,
            data_offset=NOWHERE if kind == FIXED else 512, creator=self.creator,
            creator_version=self.version, os=self.host, original_size=self.size,
            current_size=self.size, cylinders=cylinders, heads=heads, sectors=sectors, type=kind,
            uuid=self.seed.to_bytes(16, "little"))
        return footer.pack()

    def fixed(self, disk):
        return Vhd(disk.ljust(self.size, b"\0") + self.footer(FIXED))

    def sparse(self, blocks, order):
        """blocks: index -> {sector: bytes}; order: in which they were allocated."""
        kind = DIFFERENCING if self.parent else DYNAMIC
        table = round_up(4 * self.entries, SECTOR)
        out = bytearray(1536) + bytearray([self.fill]) * table
        out[1536:1536 + 4 * self.entries] = b"\xff" * (4 * self.entries)
        batmap_at = len(out)
        map_bytes = round_up((self.entries + 7) // 8, SECTOR) if self.has_batmap else 0
        out += bytes(SECTOR + map_bytes if self.has_batmap else 0)
        locators = self._put_parent(out) if self.parent else bytes(192)
        full = bytearray(map_bytes)
        for index in order:
            start = self._put_block(out, blocks[index], index, full)
            at = 1536 + 4 * index
            out[at:at + 4] = (start // SECTOR).to_bytes(4, "big")
        if self.has_batmap:
            batmap = batmap_of(bytes(512))
            batmap.__dict__.update(cookie=b"tdbatmap", offset=batmap_at + SECTOR, version=0x10002,
                                   sectors=map_bytes // SECTOR, checksum=checksum(full))
            out[batmap_at:batmap_at + SECTOR + map_bytes] = batmap.raw() + full
        header = header_of(bytes(1024))
        name, parent_id, time = self.parent or ("", bytes(16), 0)
        header.__dict__.update(cookie=b"cxsparse", next=NOWHERE, table=1536, version=0x10000,
                               entries=self.entries, block_size=self.block_size,
                               parent_id=parent_id, parent_time=time, locators=locators,
                               parent_name=utf16(name, "be").ljust(512, b"\0"))
        footer = self.footer(kind)
        out[:512] = footer
        out[512:1536] = header.pack()
        if self.creator == b"win ":  # the file ends on 4 KiB
            out += bytes(-(len(out) + SECTOR) % 4096)
        return Vhd(out + footer)

    def _put_parent(self, out):
        name = self.parent[0]
        entries = b""
        for code, payload in ((b"MacX", b"file://./" + name.encode()), (b"W2ku", utf16(".\\" + name)),
                              (b"W2ru", utf16(".\\" + name))):
            entries += LOCATOR.pack(code, SECTOR, len(payload), 0, len(out))
            out += payload.ljust(SECTOR, b"\0")
        return entries.ljust(192, b"\0")

    def _put_block(self, out, sectors, index, full):
        bits = bitmap_bytes(self.block_size)
        if self.aligned:
            out += bytes(-(len(out) + bits) % 4096)
        start = len(out)
        used = min(self.block_size, self.size - index * self.block_size) // SECTOR
        bitmap, data = bytearray(bits), bytearray(self.block_size)
        for sector, content in sectors.items():
            bitmap[sector // 8] |= 0x80 >> sector % 8
            data[sector * SECTOR:(sector + 1) * SECTOR] = content
        if self.all_bits:
            bitmap = bytearray(b"\xff") * bits
        if full and len(sectors) == used:
            full[index // 8] |= 0x80 >> index % 8
        out += bitmap + data
        return start


def random_disk(chance, program, size, block_size, share=0.5, parent=None):
    """A sound sparse disk, some of its blocks stored, in random order; and its writer."""
    writer = Writer(program, size, block_size, chance.getrandbits(120) + 1, parent)
    blocks = {}
    for index in range(writer.entries):
        if chance.random() >= share and index not in (0, writer.entries - 1):
            continue
        used = min(block_size, writer.size - index * block_size) // SECTOR
        if chance.random() < 0.25:
            sectors = range(used)
        else:
            start = chance.randrange(used)
            sectors = range(start, min(used, start + chance.randint(1, 40)))
        blocks[index] = {sector: chance.randbytes(SECTOR) for sector in sectors}
    order = sorted(blocks)
    if chance.random() < 0.7:
        chance.shuffle(order)
    return writer.sparse(blocks, order)
