# SPDX-License-Identifier: Apache-2.0
"""COW images built and read from the sheet alone, independently of the tools: all nine layouts, both
byte orders, what a guest reads, and wounds of every kind."""
import os
from collections import namedtuple

MAGIC = 0x4F4F4F4D
# Offsets of the fields; None: there is none. `path`: offset and length.
Layout = namedtuple("Layout", "version version_at path mtime wide_mtime size sectorsize alignment "
                              "cow_format length qemu")
LAYOUTS = {
    "uml-v1": Layout(1, 4, (8, 256), 264, False, 268, 276, None, None, 280, False),
    "uml-v1-64": Layout(1, 4, (8, 256), 264, True, 272, 280, None, None, 288, False),
    "uml-v2": Layout(2, 4, (8, 4096), 4104, False, 4108, 4116, None, None, 4120, False),
    "uml-v2-64": Layout(2, 4, (8, 4096), 4104, False, 4112, 4120, None, None, 4128, False),
    "uml-v2-long": Layout(2, 8, (16, 4096), 4112, False, 4120, 4128, None, None, 4136, False),
    "qemu-i386": Layout(2, 4, (8, 1024), 1032, False, 1036, 1044, None, None, 1048, True),
    "qemu-x86-64": Layout(2, 4, (8, 1024), 1032, False, 1040, 1048, None, None, 1056, True),
    "uml-v3": Layout(3, 4, (32, 4096), 8, False, 12, 20, 24, 28, 4128, False),
    "uml-v3-broken": Layout(3, 4, (36, 4096), 8, False, 16, 24, 28, 32, 4136, False),
}
ORDERS = [(name, order) for name, layout in LAYOUTS.items()
          for order in (("big", "little") if layout.version == 1 else ("big",))]


def up(value, to):
    return -(-value // to) * to


class Cow:
    """An image of a known layout. Sectors have 512 bytes; version 3 is aligned to 4096."""

    def __init__(self, layout, size, order="big"):
        self.layout, self.order, self.size = LAYOUTS[layout], order, size
        one = self.layout
        self.disk = size // 512 * 512 if one.qemu else size
        self.sectors = up(self.disk, 512) // 512
        floors = not one.qemu and one.version < 3
        alignment = 4096 if one.version == 3 else 512
        self.bitmap = up(one.length, 4096) if one.version == 3 else one.length
        self.bitmap_length = (size + 511) // 4096 if floors else up(self.sectors, 8) // 8
        self.place = up(self.bitmap + self.bitmap_length, alignment)
        # Versions 1 and 2 may have no bits for the last sectors: they use the byte behind, unless
        # the data begins there.
        tail_is_data = self.sectors > 8 * self.bitmap_length and \
            self.bitmap + self.bitmap_length >= self.place
        self.tracked = 8 * self.bitmap_length if tail_is_data else self.sectors
        self.data = bytearray(self.place + size if not one.qemu
                              else self.bitmap + self.bitmap_length)

    def put(self, at, length, value):
        if at + length <= len(self.data):
            self.data[at:at + length] = (value % (1 << 8 * length)).to_bytes(length, self.order)

    def header(self, path, mtime):
        one = self.layout
        self.put(0, 4, MAGIC)
        self.put(one.version_at, 4, one.version)
        name = os.fsencode(path)
        assert len(name) < one.path[1]
        self.data[one.path[0]:one.path[0] + len(name)] = name
        self.put(one.mtime, 8 if one.wide_mtime else 4, mtime)
        self.put(one.size, 8, self.size)
        self.put(one.sectorsize, 4, 512)
        if one.alignment:
            self.put(one.alignment, 4, 4096)
        return self

    def mark(self, sector, marked=True):
        at = self.bitmap + sector // 8
        bit = 1 << sector % 8
        self.data[at] = self.data[at] | bit if marked else self.data[at] & ~bit

    def store(self, sector, content):
        at = self.place + 512 * sector
        if len(self.data) < at + len(content):
            self.data += bytes(at + len(content) - len(self.data))
        self.data[at:at + len(content)] = content
        self.mark(sector)

    def stored(self):
        return [sector for sector in range(self.tracked)
                if self.data[self.bitmap + sector // 8] >> sector % 8 & 1]

    def contents(self):
        """(place, bytes) of every sector that is stored whole."""
        for sector in self.stored():
            at = self.place + 512 * sector
            if at + 512 <= len(self.data):
                yield at, bytes(self.data[at:at + 512])

    def read(self, base):
        """The disk as the guest sees it."""
        disk = bytearray(base[:self.disk].ljust(self.disk, b"\0"))
        for sector in self.stored():
            at = self.place + 512 * sector
            content = self.data[at:at + 512].ljust(512, b"\0")
            disk[512 * sector:512 * sector + 512] = content[:self.disk - 512 * sector]
        return bytes(disk)

    def fill(self, rng, count):
        """So many sectors with random bytes, in random order."""
        for _ in range(count if self.tracked else 0):
            sector = rng.randrange(self.tracked)
            self.store(sector, rng.randbytes(min(512, self.disk - 512 * sector)))
        return self

    def save(self, path):
        # In holes, as UML and QEMU leave them.
        with open(path, "wb") as file:
            for at in range(0, len(self.data), 512):
                piece = self.data[at:at + 512]
                if any(piece):
                    file.seek(at)
                    file.write(piece)
            file.truncate(len(self.data))

    # Wounds. Each takes a random.Random and says what it did.

    def hurt_header(self, rng):
        at = rng.randrange(min(self.layout.length, len(self.data)))
        self.data[at] = rng.randrange(256)
        return f"header byte {at}"

    def hurt_field(self, rng):
        one = self.layout
        at, length = rng.choice([(0, 4), (one.version_at, 4), (one.mtime, 4), (one.size, 8),
                                 (one.sectorsize, 4)] +
                                [(at, 4) for at in (one.alignment, one.cow_format) if at])
        value = rng.choice((0, 1, 2, 512, 4096, 2 ** (8 * length) - 1, rng.getrandbits(64)))
        self.put(at, length, value)
        return f"field at {at} set to {value:#x}"

    def hurt_path(self, rng):
        at, length = self.layout.path
        where = rng.choice((slice(at, at + length), slice(at, at + 1),
                            slice(at + length - 200, at + length)))
        self.data[where] = rng.choice((b"/", b"x", b"\0")) * len(self.data[where])
        return f"path {where}"

    def hurt_bitmap(self, rng):
        at = self.bitmap + rng.randrange(self.bitmap_length + 1)
        if at < len(self.data):
            self.data[at] = rng.choice((0, 0xFF, rng.randrange(256)))
        return f"bitmap byte {at}"

    def lose_marks(self, rng):
        for sector in self.stored()[::rng.choice((1, 2, 5))]:
            self.mark(sector, False)
        return "marks lost"

    def scribble(self, rng):
        at = rng.randrange(len(self.data))
        length = min(rng.randrange(1, 2000), len(self.data) - at)
        self.data[at:at + length] = rng.choice((bytes(length), rng.randbytes(length)))
        return f"{length} bytes at {at}"

    def truncate(self, rng):
        del self.data[rng.choice((rng.randrange(8, len(self.data)),
                                  max(8, len(self.data) - rng.randrange(1500)))):]
        return f"cut to {len(self.data)}"

    def append(self, rng):
        self.data += rng.choice((bytes, rng.randbytes))(rng.randrange(1, 5000))
        return f"lengthened to {len(self.data)}"

    WOUNDS = (hurt_header, hurt_field, hurt_field, hurt_path, hurt_bitmap, hurt_bitmap, lose_marks,
              scribble, truncate, truncate, append)

    def hurt(self, rng):
        """One to three wounds; what was done."""
        return [rng.choice(self.WOUNDS)(self, rng) for _ in range(rng.choice((1, 1, 2, 3)))]
