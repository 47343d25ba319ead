# SPDX-License-Identifier: Apache-2.0
"""The damaged COW images among the fixtures: one for each thing that can be wrong with one. Their
backing file has a fixed time, and is looked at where the options say --chain."""
import os
import random

from imglib.cow import Cow, up

FILE, BASE = "disk.cow", "base.img"
STAMP = 1600000000
SECTORS = 1000
FIXTURES = {}  # name -> (options, layout and sectors, what is done to it)
CHAIN = ("--chain",)


def fixture(layout="uml-v3", options=(), size=SECTORS * 512, order="big"):
    def register(function):
        FIXTURES[function.__name__.replace("_", "-")] = (options, (layout, size, order), function)
        return function
    return register


def build(folder, name):
    _, (layout, size, order), damage = FIXTURES[name]
    rng = random.Random("cow fixtures")
    base = folder / BASE
    base.write_bytes(rng.randbytes(size))
    image = Cow(layout, size, order).header(BASE, STAMP)
    for sector in (0, 1, 8, 9, 10, 500, 501, image.tracked - 1):
        if 0 <= sector < image.tracked:
            image.store(sector, rng.randbytes(min(512, image.disk - 512 * sector)))
    image.base = base
    damage(image)
    image.save(folder / FILE)
    if base.exists():
        os.utime(base, (STAMP, STAMP) if not hasattr(image, "stamp") else (image.stamp,) * 2)


def field(image, name, length, value):
    image.put(getattr(image.layout, name), length, value)


# --- sound, of each kind

@fixture(options=CHAIN)
def sound(_):
    pass


@fixture("uml-v1", CHAIN, order="little")
def sound_v1(_):
    pass


@fixture("uml-v2", CHAIN)
def sound_v2(_):
    pass


@fixture("qemu-x86-64", CHAIN)
def sound_qemu(_):
    pass


@fixture("uml-v2-long")
def layout_foreign(_):
    pass


@fixture("uml-v3-broken")
def v3_broken_layout(_):
    pass


# --- header

@fixture(options=("--format", "cow"))
def magic(i):
    i.data[0] ^= 0xFF


@fixture(options=("--format", "cow"))
def version_seven(i):
    field(i, "version_at", 4, 7)


@fixture(options=("--format", "cow"))
def empty_file(i):
    del i.data[:]


@fixture()
def header_truncated(i):
    del i.data[200:]


@fixture(options=("--format", "cow"))
def layout_ambiguous(i):
    i.data[4:i.layout.length] = bytes(i.layout.length - 4)
    field(i, "version_at", 4, 2)


@fixture()
def endian(i):
    i.data[0:4] = i.data[3::-1]


@fixture()
def sectorsize(i):
    field(i, "sectorsize", 4, 513)


@fixture()
def alignment(i):
    field(i, "alignment", 4, 1000)


@fixture()
def format_field(i):
    field(i, "cow_format", 4, 7)


@fixture()
def size_zero(i):
    field(i, "size", 8, 0)


@fixture(size=SECTORS * 512 + 100)
def size_unaligned(_):
    pass


@fixture()
def size_overflow(i):
    field(i, "size", 8, 1 << 63)


@fixture("uml-v1", order="little")
def size_too_small(i):
    field(i, "size", 8, 4096)


@fixture("uml-v2-64", CHAIN)
def size_huge_file_cut(i):
    field(i, "size", 8, 0xd8ee7dedd905447)
    del i.data[-700:]


@fixture("qemu-x86-64")
def size_huge_base_missing(i):
    field(i, "size", 8, 0x1b943069f841432)
    i.base.unlink()


@fixture()
def path_unterminated(i):
    at, length = i.layout.path
    i.data[at:at + length] = b"/" + b"x" * (length - 1)


@fixture()
def path_empty(i):
    at, length = i.layout.path
    i.data[at:at + length] = bytes(length)


@fixture()
def path_garbage(i):
    at, _ = i.layout.path
    i.data[at + 100:at + 104] = b"left"


# --- bitmap and data

@fixture()
def bitmap_truncated(i):
    del i.data[i.bitmap + 20:]


@fixture("uml-v2", size=1001 * 512)
def bitmap_rounding(_):
    pass


@fixture("uml-v2", size=(8 * (512 - 4120 % 512) + 5) * 512)
def bitmap_data_alias(_):
    pass


@fixture(size=1001 * 512)
def bits_past_size(i):
    i.mark(1003)


@fixture()
def data_beyond_eof(i):
    del i.data[i.place + 501 * 512:]


@fixture()
def sector_cut(i):
    del i.data[i.place + 501 * 512 + 100:]


@fixture(options=("--deep",))
def hole_set(i):
    for sector in range(600, 616):
        i.mark(sector)


@fixture(options=("--deep",))
def data_unmapped(i):
    for sector in (8, 9, 10):
        i.mark(sector, False)


@fixture(options=(*CHAIN, "--deep"))
def data_redundant(i):
    i.store(20, i.base.read_bytes()[20 * 512:21 * 512])


@fixture()
def file_short(i):
    for sector in range(990, 1000):
        i.mark(sector, False)
    del i.data[i.place + 600 * 512:]


@fixture()
def trailing_data(i):
    i.data += b"behind" * 1000


# --- backing file

@fixture()
def backing_missing(i):
    i.base.unlink()


@fixture(options=CHAIN)
def chain_missing(i):
    i.base.unlink()


@fixture(options=CHAIN)
def backing_larger(i):
    with open(i.base, "ab") as file:
        file.write(bytes(4096))


@fixture(options=CHAIN)
def backing_touched(i):
    i.stamp = STAMP + 60


@fixture(options=(*CHAIN, "--deep"))
def backing_merged(i):
    with open(i.base, "r+b") as file:
        for sector in i.stored():
            file.seek(512 * sector)
            file.write(i.data[i.place + 512 * sector:i.place + 512 * sector + 512])
    i.stamp = STAMP + 60


@fixture(options=CHAIN)
def backing_is_cow(i):
    inner = Cow("uml-v3", SECTORS * 512).header("inner.img", STAMP)
    with open(i.base, "r+b") as file:
        file.write(inner.data[:8192])


@fixture(options=CHAIN)
def chain_cycle(i):
    i.header(FILE, STAMP)


@fixture("uml-v2")
def header_upgraded_in_place(i):
    newer = Cow("uml-v3", i.size).header(BASE, STAMP)
    i.data[:newer.layout.length] = newer.data[:newer.layout.length]
    assert up(newer.layout.length, 4096) != i.bitmap
