# SPDX-License-Identifier: Apache-2.0
"""Random damage to VHDs of all kinds and makers. Where structures are is read from a sound copy, so
that an image can be damaged again and again."""
from imglib.vhd import (SECTOR, UNALLOCATED, Vhd, Writer, bitmap_bytes,
                        random_disk)

KB, MB = 1024, 1024 * 1024
DAMAGES = {}


def damage(*kinds, redundant=False):
    """Registers a way to damage an image of those kinds. redundant: what is hurt is stored twice,
    or follows from the rest, so that the repaired disk must read as the sound one."""
    def register(function):
        DAMAGES[function.__name__] = (function, kinds, redundant)
        return function
    return register


class Patient:
    """A VHD to be damaged, its sound twin, and the disk underneath where it is a child."""

    def __init__(self, chance):
        self.chance = chance
        self.kind = chance.choice(("fixed", "dynamic", "dynamic", "dynamic", "tap", "child", "child"))
        block_size = chance.choice((64 * KB, 64 * KB, 128 * KB, 512 * KB))
        size = chance.randint(5, 20) * block_size + chance.randrange(3) * 7 * SECTOR
        self.parent, self.base = b"", None
        if self.kind == "fixed":
            program = chance.choice(("qemu", "qem2", "vpc", "win"))
            writer = Writer(program, chance.randint(1, 6) * 256 * KB, 64 * KB, chance.getrandbits(99) + 1)
            start = chance.randrange(writer.size // SECTOR) * SECTOR
            disk = bytes(start) + chance.randbytes(min(100 * SECTOR, writer.size - start))
            self.sound = writer.fixed(disk)
        elif self.kind == "child":
            self.base = random_disk(chance, "qem2", size, block_size, 0.8)
            self.parent = self.base.read()
            self.sound = random_disk(chance, "tap" if chance.random() < 0.3 else "win", size,
                                     block_size, 0.5, ("base.vhd", self.base.footer.uuid, 1))
        else:
            program = "tap" if self.kind == "tap" else chance.choice(("qemu", "qem2", "vpc", "win", "d2v"))
            self.sound = random_disk(chance, program, size, block_size, chance.choice((0.3, 0.6, 1)))
        self.hurt = Vhd(self.sound.data)
        self.shortest = len(self.hurt.data)

    @property
    def sparse(self):
        return self.kind != "fixed"

    def put(self, at, data):
        """Where the file still has a place for it."""
        if at + len(data) <= len(self.hurt.data):
            self.hurt.data[at:at + len(data)] = data

    def scribble(self, at, length):
        data = self.chance.choice((bytes(length), b"\xff" * length, self.chance.randbytes(length)))
        self.put(at, data)

    def flip(self, at):
        if at < len(self.hurt.data):
            self.hurt.data[at] ^= 1 << self.chance.randrange(8)

    def entry(self, index, value):
        self.put(self.sound.entry_at(index), (value & 0xFFFFFFFF).to_bytes(4, "big"))

    def any_entry(self):
        return self.chance.randrange(self.sound.header.entries)

    def a_block(self):
        return self.chance.choice(self.sound.stored())

    def injure(self):
        """One to three damages; returns their names, and whether all of them hit redundancy."""
        names, all_redundant = [], True
        kind = "fixed" if self.kind == "fixed" else "sparse"
        fitting = sorted(n for n, (_, kinds, _) in DAMAGES.items()
                         if kind in kinds or self.kind in kinds)
        for _ in range(self.chance.choice((1, 1, 2, 3))):
            name = self.chance.choice(fitting)
            function, _, redundant = DAMAGES[name]
            function(self)
            self.shortest = min(self.shortest, len(self.hurt.data))
            names.append(name)
            all_redundant = all_redundant and redundant
        return names, all_redundant and len(names) == 1


# --- footers

@damage("sparse", redundant=True)
def footer_bits(p):
    for _ in range(p.chance.randint(1, 5)):
        p.flip(p.sound.end + p.chance.randrange(86))


@damage("sparse", redundant=True)
def footer_bytes(p):
    p.scribble(p.sound.end + p.chance.randrange(480), p.chance.randint(1, 32))


@damage("fixed")
def only_footer_bits(p):
    for _ in range(p.chance.randint(1, 3)):
        p.flip(p.sound.end + p.chance.randrange(86))


@damage("fixed")
def only_footer_bytes(p):
    p.scribble(p.sound.end + p.chance.randrange(86), p.chance.randint(1, 16))


@damage("sparse", redundant=True)
def copy_bits(p):
    for _ in range(p.chance.randint(1, 5)):
        p.flip(p.chance.randrange(86))


@damage("sparse", redundant=True)
def copy_gone(p):
    p.scribble(0, SECTOR)


@damage("sparse", redundant=True)
def footer_gone(p):
    p.scribble(p.sound.end, SECTOR)


@damage("sparse", redundant=True)
def footer_cut(p):
    del p.hurt.data[p.sound.end:]


@damage("sparse", redundant=True)
def footer_partly_cut(p):
    del p.hurt.data[p.sound.end + p.chance.randrange(1, SECTOR):]


@damage("sparse", redundant=True)
def footer_killed(p):
    p.put(p.sound.end, b"\xc7" * SECTOR)


@damage("sparse", redundant=True)
def footer_checksum_zero(p):
    p.put(p.sound.end + 64, bytes(4))


@damage("sparse")
def both_footers_bits(p):
    p.flip(p.chance.randrange(86))
    p.flip(p.sound.end + p.chance.randrange(86))


@damage("sparse")
def both_footers_gone(p):
    p.scribble(0, SECTOR)
    p.scribble(p.sound.end, SECTOR)


@damage("sparse")
def footer_poisoned(p):
    p.put(p.sound.end, b"v_poison")


# --- the end of the file

@damage("sparse", "fixed")
def appended_zeros(p):
    p.hurt.data += bytes(p.chance.choice((1, 511, 512, 5000, 65536)))


@damage("sparse", "fixed")
def appended_junk(p):
    p.hurt.data += p.chance.randbytes(p.chance.choice((1, 512, 3000)))


@damage("sparse", "fixed")
def cut_anywhere(p):
    del p.hurt.data[p.chance.randrange(1536, len(p.sound.data)):]


@damage("sparse", "fixed")
def cut_a_little(p):
    del p.hurt.data[max(1536, len(p.hurt.data) - p.chance.randint(1, 3000)):]


@damage("sparse")
def cut_in_table(p):
    if p.chance.random() < 0.3:
        del p.hurt.data[p.chance.randrange(1536, 1536 + 4 * p.sound.header.entries):]
    else:
        p.entry(p.any_entry(), 0)


@damage("sparse")
def footer_moved_back(p):
    at = p.sound.end - SECTOR * p.chance.randint(1, 20)
    p.put(at, p.sound.data[p.sound.end:])
    del p.hurt.data[at + SECTOR:]


# --- the dynamic header

@damage("sparse")
def header_bits(p):
    for _ in range(p.chance.randint(1, 3)):
        p.flip(SECTOR + p.chance.randrange(60))


@damage("sparse")
def header_bytes(p):
    p.scribble(SECTOR + p.chance.randrange(60), p.chance.randint(1, 12))


@damage("dynamic", "tap")
def header_gone(p):
    p.scribble(SECTOR, 1024)


@damage("sparse", redundant=True)
def header_cookie(p):
    p.scribble(SECTOR, p.chance.randint(1, 8))


@damage("dynamic", "tap", redundant=True)
def header_parent_fields(p):
    p.scribble(SECTOR + 40 + p.chance.randrange(500), p.chance.randint(1, 16))


# --- the block table

@damage("sparse")
def entry_twice(p):
    p.entry(p.any_entry(), p.sound.entry(p.a_block()))


@damage("sparse")
def entry_over_another(p):
    length = (p.sound.header.block_size + bitmap_bytes(p.sound.header.block_size)) // SECTOR
    p.entry(p.any_entry(), p.sound.entry(p.a_block()) + p.chance.randint(1, length - 1))


@damage("sparse")
def entry_in_metadata(p):
    p.entry(p.any_entry(), p.chance.randrange(8))


@damage("sparse")
def entry_past_end(p):
    p.entry(p.any_entry(), p.chance.choice((len(p.sound.data) // SECTOR + 7, 0x7FFFFFFF,
                                            UNALLOCATED - 1)))


@damage("sparse")
def entry_over_footer(p):
    p.entry(p.any_entry(), p.sound.end // SECTOR - p.chance.randint(0, 60))


@damage("sparse")
def entry_random(p):
    p.entry(p.any_entry(), p.chance.getrandbits(32))


@damage("sparse")
def entry_lost(p):
    p.entry(p.a_block(), UNALLOCATED)


@damage("sparse")
def entry_wiped(p):
    p.entry(p.a_block(), 0)


@damage("sparse")
def table_bytes(p):
    p.scribble(1536 + p.chance.randrange(4 * p.sound.header.entries), p.chance.randint(1, 20))


@damage("sparse")
def table_gone(p):
    p.put(1536, p.chance.choice((bytes(SECTOR), b"\xff" * SECTOR)))


# --- sector bitmaps, batmap, locators, what other programs leave

@damage("sparse")
def bitmap_bits(p):
    bits = p.sound.header.block_size // SECTOR // 8
    for _ in range(p.chance.randint(1, 8)):
        p.flip(p.sound.block(p.a_block()) + p.chance.randrange(bits))


@damage("sparse")
def bitmap_gone(p):
    bits = p.sound.header.block_size // SECTOR // 8
    p.put(p.sound.block(p.a_block()), p.chance.choice((bytes(bits), b"\xff" * bits)))


@damage("tap", redundant=True)
def batmap_bytes(p):
    p.scribble(p.sound.batmap_at + p.chance.randrange(30), p.chance.randint(1, 8))


@damage("tap", redundant=True)
def batmap_map(p):
    p.scribble(p.sound.batmap_at + SECTOR, p.chance.randint(1, 3))


@damage("child")
def locator_bytes(p):
    p.scribble(SECTOR + 576 + p.chance.randrange(72), p.chance.randint(1, 8))


@damage("child")
def parent_name(p):
    p.scribble(SECTOR + 64, p.chance.randint(1, 40))


@damage("sparse")
def stale_footer(p):
    """As QEMU leaves one behind in an image by Virtual PC."""
    block = p.sound.block(p.a_block()) + bitmap_bytes(p.sound.header.block_size)
    at = block + SECTOR * p.chance.randrange(p.sound.header.block_size // SECTOR)
    if not any(p.sound.data[at:at + SECTOR]):
        p.put(at, p.sound.data[p.sound.end:])


