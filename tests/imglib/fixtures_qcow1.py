# SPDX-License-Identifier: Apache-2.0
"""The damaged qcow images (version 1) among the fixtures. QEMU makes the sound ones, writing clusters
in a random order; a few bytes are changed then."""
import random

from imglib.programs import qemu_img, qemu_io

FILE = "disk.qcow"
CLUSTER, ENTRIES, SIZE = 4096, 512, 5 << 20  # QEMU's own choice: tables of 2 MiB
FLAG = 1 << 63
FIXTURES = {}  # name -> (options, kind of image, what is done to it)


def fixture(kind="plain", options=()):
    def register(function):
        FIXTURES[function.__name__.replace("_", "-")] = (options, kind, function)
        return function
    return register


def make(folder, kind):
    rng = random.Random(f"qcow {kind}")
    path, extra = folder / FILE, []
    if kind == "backing":
        qemu_img("create", "-q", "-f", "raw", folder / "base.img", SIZE)
        extra = ["-b", "base.img", "-F", "raw"]
    qemu_img("create", "-q", "-f", "qcow", *extra, path, SIZE, cwd=folder)
    clusters = [0, 1, 511, 512, 513, 1023, 1024, 1279, *rng.sample(range(2, 500), 12)]
    rng.shuffle(clusters)
    commands = []
    for number, cluster in enumerate(clusters):
        flag = "-c " if kind == "compressed" and number % 2 else ""
        commands.append(f"write {flag}-P {number + 1} {cluster * CLUSTER} {CLUSTER}")
    qemu_io(path, commands, ["-f", "qcow", path])
    return path


class Image:
    """The bytes of a sound image, to be changed, with where things are."""

    def __init__(self, data):
        self.data = bytearray(data)
        self.l1 = self.get(40)
        self.tables = [self.get(self.l1 + 8 * i) for i in range(3)]
        self.rng = random.Random("choice")

    def get(self, at, size=8):
        return int.from_bytes(self.data[at:at + size], "big")

    def put(self, at, value, size=8):
        self.data[at:at + size] = value.to_bytes(size, "big")

    def entries(self, compressed=False):
        """(place, value) of the entries in use."""
        found = []
        for table in self.tables:
            for at in range(table, table + 8 * ENTRIES, 8):
                value = self.get(at)
                if value and bool(value & FLAG) == compressed:
                    found.append((at, value))
        return found

    def entry(self, number=3, compressed=False):
        return self.entries(compressed)[number]


# --- header

@fixture(options=("--format", "qcow"))
def magic(i):
    i.data[3] ^= 1


@fixture(options=("--format", "qcow"))
def version(i):
    i.put(4, 4, 4)


@fixture()
def size_small(i):
    i.put(24, 1)


@fixture()
def size_unaligned(i):
    i.put(24, SIZE - 511)


@fixture()
def size_overflow(i):
    i.put(24, (1 << 64) - 512)


@fixture()
def cluster_bits_8(i):
    i.data[32] = 8


@fixture()
def cluster_bits_17(i):
    i.data[32] = 17


@fixture()
def l2_bits_5(i):
    i.data[33] = 5


@fixture()
def l2_bits_14(i):
    i.data[33] = 14


@fixture()
def padding(i):
    i.data[34] = 1


@fixture()
def crypt(i):
    i.put(36, 2, 4)


@fixture()
def l1_offset(i):
    i.put(40, 8)


@fixture()
def l1_past_eof(i):
    i.put(40, len(i.data) + 65536)


# --- tables

@fixture()
def l1_entry_flag(i):
    i.put(i.l1, i.tables[0] | FLAG)


@fixture()
def l1_entry_unaligned(i):
    i.put(i.l1 + 8, i.tables[1] + 100)


@fixture()
def l1_entry_past_eof(i):
    i.put(i.l1 + 8, len(i.data) + (1 << 20))


@fixture()
def l1_entry_duplicate(i):
    i.put(i.l1 + 8, i.tables[0])


@fixture()
def l1_entry_zeroed(i):
    i.put(i.l1, 0)


@fixture()
def l2_text(i):
    text = b"this is no mapping table\n" * 200
    i.data[i.tables[0]:i.tables[0] + CLUSTER] = text[:CLUSTER]


@fixture()
def l2_entry_unaligned(i):
    at, value = i.entry()
    i.put(at, value + 256)


@fixture()
def l2_entry_past_eof(i):
    at, _ = i.entry()
    i.put(at, len(i.data) + (1 << 20))


@fixture()
def l2_entry_far(i):
    at, _ = i.entry()
    i.put(at, 1 << 60)


@fixture()
def cluster_short(i):
    del i.data[-100:]


@fixture()
def cut_in_half(i):
    del i.data[len(i.data) // 2:]


@fixture()
def data_crosslink(i):
    (at, _), (_, other) = i.entry(2), i.entry(5)
    i.put(at, other)


@fixture()
def data_on_l2(i):
    at, _ = i.entry()
    i.put(at, i.tables[1])


@fixture()
def l1_entry_on_l1(i):
    i.put(i.l1 + 16, i.l1)


# --- compressed clusters

@fixture("compressed")
def compr_size_zero(i):
    at, value = i.entry(2, True)
    i.put(at, FLAG | value & (1 << 51) - 1)


@fixture("compressed")
def compr_past_eof(i):
    at, value = i.entry(2, True)
    i.put(at, value & ~((1 << 51) - 1) | len(i.data) + 4096)


@fixture("compressed", ("--deep",))
def compr_undecodable(i):
    _, value = i.entry(2, True)
    start, length = value & (1 << 51) - 1, value >> 51 & 4095
    i.data[start:start + length] = b"\xff" * length


@fixture("compressed", ("--deep",))
def compr_overlap(i):
    (at, value), (_, other) = i.entry(1, True), i.entry(2, True)
    i.put(at, value & ~((1 << 51) - 1) | (other & (1 << 51) - 1) - 1)


# --- the rest

@fixture()
def past_size(i):
    i.put(24, 4 << 20)


@fixture()
def waste(i):
    i.data += bytes(-len(i.data) % 512) + b"left over" * 1000


@fixture("backing")
def backing_name_outside(i):
    i.put(8, len(i.data) + 5000)


@fixture()
def backing_name_nowhere(i):
    i.put(8, (1 << 64) - 1)


@fixture("backing")
def backing_name_long(i):
    i.put(16, 2000, 4)


@fixture("backing")
def backing_missing(i):
    at = i.get(8)
    i.data[at:at + 8] = b"none.img"


def build(folder, name):
    _, kind, apply = FIXTURES[name]
    path = make(folder, kind)
    image = Image(path.read_bytes())
    apply(image)
    path.write_bytes(image.data)
