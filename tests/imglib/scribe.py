# SPDX-License-Identifier: Apache-2.0
"""Disks as QEMU's tools make them, of every format that they write, out of random requests; and
damage of every format: one to three of the fields that metadata consists of get another value. Both
are the same for the same seed."""
import json
import random

from imglib.programs import qemu_img, run
from imglib.qcow1 import Qcow1
from imglib.qcow2 import BITMAP_ENTRY, HEADER, SNAPSHOT_ENTRY, Qcow2
from imglib.vhd import FOOTER, FOOTER_NAMES, SECTOR, Vhd, footer_of, header_of
from imglib.vhd import HEADER as VHD_HEADER

KB, MB = 1024, 1 << 20
FORMATS = ("qcow2", "qcow", "vpc", "raw")


class Scribe:
    """Makes one image (and the file behind it, if any) in `folder`."""

    def __init__(self, folder, kind, seed):
        self.folder, self.kind = folder, kind
        self.random = random.Random(f"scribe {kind} {seed}")
        self.path = folder / f"disk.{kind}"
        self.patterns = []
        for number in range(6):
            # Of odd lengths, repeated: no two sectors of a cluster are alike.
            pattern = folder / f"pattern{number}"
            pattern.write_bytes(self.random.randbytes(self.random.randrange(513, 2000)))
            self.patterns.append(pattern)

    def make(self):
        self.size = self.random.choice((1, 3, 8)) * MB + 512 * self.random.choice((0, 0, 1, 77))
        self.step, self.options, self.compress, self.snapshots = getattr(self, self.kind)()
        behind = self.backing() if self.kind in ("qcow2", "qcow") else []
        words = ["-o", ",".join(self.options)] if self.options else []
        qemu_img("create", "-q", "-f", self.kind, *behind, *words, self.path, self.size)
        self.size = json.loads(qemu_img("info", "--output=json", "-f", self.kind,
                                        self.path))["virtual-size"]
        self.write(self.random.randrange(0, 24))
        for number in range(self.snapshots):
            before = self.path.read_bytes()
            if run("qemu-img", "snapshot", "-c", f"s{number}", self.path).code != 0:
                self.path.write_bytes(before)  # counts of too few bits; it leaves leaks
            self.write(self.random.randrange(1, 9))
        return self.path

    def qcow2(self):
        chance = self.random
        step = chance.choice((512, 1 * KB, 4 * KB, 16 * KB, 64 * KB))
        options = [f"cluster_size={step}"]
        snapshots = chance.choice((0, 0, 0, 1, 2))
        compress = chance.random() < 0.3
        if chance.random() < 0.3:
            options.append("compat=0.10")
        else:
            bits = chance.choice((16, 16, 1, 2, 8, 64))
            options.append(f"compat=1.1,refcount_bits={bits}")
            snapshots = 0 if bits == 1 else snapshots
            if step >= 16 * KB and chance.random() < 0.5:
                options.append("extended_l2=on")
            elif chance.random() < 0.2:
                options.append("lazy_refcounts=on")
            if compress and chance.random() < 0.5:
                options.append("compression_type=zstd")
        if chance.random() < 0.1:
            options.append("preallocation=metadata")
        return step, options, compress, snapshots

    def qcow(self):
        return 4 * KB, [], self.random.random() < 0.4, 0

    def vpc(self):
        fixed = self.random.random() < 0.2
        options = ["subformat=fixed"] if fixed else []
        if self.random.random() < 0.3:
            options.append("force_size=on")
        return 64 * KB, options, False, 0

    def raw(self):
        return 4 * KB, [], False, 0

    def backing(self):
        if "preallocation=metadata" in self.options or self.random.random() < 0.75:
            return []
        kind = self.random.choice(("raw", "qcow2"))
        base = self.folder / f"base.{kind}"
        size = self.random.choice((self.size, self.size // 2 // 512 * 512, self.size + MB))
        qemu_img("create", "-q", "-f", kind, base, size)
        run("qemu-io", "-f", kind, "-c", f"write -s {self.patterns[0]} 64k 300k", base, check=True)
        return ["-b", base.name, "-F", kind]

    def write(self, count):
        words = []
        for _ in range(count):
            start, length = self.place()
            if length == 0:
                continue
            action = self.random.choice(("write", "write", "write", "write -z", "discard",
                                         "write -z -u", "write -c"))
            if action == "write -c" and not (self.compress and self.kind in ("qcow2", "qcow")):
                action = "write"
            if action == "write -c":
                start, length = start // self.step * self.step, self.step
                if start + length > self.size:
                    continue
            if not action.startswith(("write -z", "discard")):
                action += f" -s {self.random.choice(self.patterns)}"
            words += ["-c", f"{action} {start} {length}"]
        if words:  # what QEMU refuses (zeros of a VHD …) it refuses
            run("qemu-io", "-d", "unmap", "-f", self.kind, *words, self.path)

    def place(self):
        unit = self.random.choice((512, self.step, self.step))
        length = self.random.choice((unit, unit, 3 * unit, self.random.randrange(1, 40) * unit))
        start = self.random.randrange(self.size) // unit * unit
        length = min(length, self.size - start) // 512 * 512
        return start, length


def other_value(chance, old, width, others, end):
    """A wrong value for a field of so many bytes."""
    top = (1 << 8 * width) - 1
    step = chance.choice((512, 4096, 65536))
    return chance.choice((
        old ^ 1 << chance.randrange(8 * width), old ^ 1 << chance.randrange(8 * width), 0, top,
        old + 1, old - 1, old + step, chance.choice(others), chance.choice(others),
        chance.randrange(end + 1), end // step * step + step * chance.randrange(3),
        chance.getrandbits(8 * width))) & top


class Fields:
    """The fields of an image's metadata, by kind: {kind: [(offset, bytes)]}."""

    def __init__(self, path, kind):
        self.kind, self.path = kind, path
        self.data = bytearray(path.read_bytes())
        self.found = {}
        getattr(self, kind)()

    def add(self, kind, offset, width):
        self.found.setdefault(kind, []).append((offset, width))

    def qcow2(self):
        with Qcow2(self.path) as image:
            for name, (at, width) in HEADER.items():
                if at < image.header["header_length"]:
                    self.add("header", at, width)
            for extension in image.extensions:
                self.add("header", extension.place + 4, 4)
            for layer, place, size in image.layers():
                for index in range(size):
                    self.add("l1" if layer == "active" else "snapshot-l1", place + 8 * index, 8)
                for slot in image.slots(layer):
                    self.add("l2", slot.place, 8)
                    self.add("l2", slot.place + image.l2_entry_size, 8)
                    if image.l2_entry_size == 16:
                        self.add("l2-bitmap", slot.place + 8, 8)
            for snapshot in image.snapshots:
                for at, width in SNAPSHOT_ENTRY.values():
                    self.add("snapshot", snapshot.place + at, width)
            for bitmap in image.bitmaps:
                for at, width in BITMAP_ENTRY.values():
                    self.add("bitmap", bitmap.place + at, width)
            table = image.header["refcount_table_offset"]
            for index in range(4):
                self.add("refcount-table", table + 8 * index, 8)
            for cluster in range(len(self.data) // image.cluster_size):
                place = image.refcount_place(cluster)
                if place:
                    self.add("count", place[0], max(place[2] // 8, 1))

    def qcow(self):
        image = Qcow1(self.path)
        for at, width in ((0, 4), (4, 4), (8, 8), (16, 4), (20, 4), (24, 8), (32, 1), (33, 1),
                          (34, 2), (36, 4), (40, 8)):
            self.add("header", at, width)
        for slot in range(image.slots):
            self.add("l1", image.l1 + 8 * slot, 8)
        for mapped in image.mapped():
            self.add("l2", mapped.entry_at, 8)
            self.add("l2", mapped.entry_at ^ 8, 8)

    def vpc(self):
        ends = [len(self.data) - SECTOR]
        if self.data[:8] == b"conectix":
            ends.append(0)
            for at, width in zip(offsets(VHD_HEADER), widths(VHD_HEADER)):
                self.add("vhd-header", 512 + at, width)
            image = Vhd(bytes(self.data))
            for index in range(image.header.entries):
                self.add("bat", image.entry_at(index), 4)
            for index in image.stored():
                for byte in range(0, 512, 37):
                    self.add("vhd-bitmap", image.block(index) + byte, 1)
        for end in ends:
            for name, at, width in zip(FOOTER_NAMES, offsets(FOOTER), widths(FOOTER)):
                if width <= 8:
                    self.add("footer", end + at, width)

    def raw(self):
        pass

    def injure(self, chance):
        """Changes one to three fields, or now and then the file's length; says what it did."""
        done = []
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            if not self.found or chance.random() < 0.05:
                done.append(self.cut(chance))
                continue
            kind = chance.choice(sorted(self.found))
            places = self.found[kind]
            at, width = chance.choice(places)
            if at + width > len(self.data):
                continue
            old = self.number(at, width)
            others = [self.number(*place) for place in chance.choices(places, k=3)]
            new = other_value(chance, old, width, others, len(self.data))
            if new == old:
                new ^= 1
            self.data[at:at + width] = new.to_bytes(width, "big")
            if self.kind == "vpc" and chance.random() < 0.5:
                self.seal()
            done.append(f"{kind} {at:#x}: {old:#0{2 + 2 * width}x} -> {new:#0{2 + 2 * width}x}")
        self.path.write_bytes(self.data)
        return done

    def number(self, at, width):
        return int.from_bytes(self.data[at:at + width], "big")

    def cut(self, chance):
        size = len(self.data)
        size = max(size - chance.choice((1, 100, 512, 4096, 70000, size // 2)), 1)
        if chance.random() < 0.3:
            self.data += chance.randbytes(chance.choice((1, 511, 512, 5000)))
        else:
            del self.data[size:]
        return f"length {len(self.data)}"

    def seal(self):
        """Makes the checksums of a VHD right."""
        end = len(self.data) - SECTOR
        ends = (0, end) if self.data[:8] == b"conectix" else (end,)
        for at in ends:
            if at >= 0:
                self.data[at:at + SECTOR] = footer_of(self.data[at:at + SECTOR]).pack()
        if self.data[512:520] == b"cxsparse" and end >= 1536:
            self.data[512:1536] = header_of(self.data[512:1536]).pack()


def widths(layout):
    """The bytes of each field of a struct.Struct, big-endian without padding."""
    sizes, number = [], ""
    for letter in layout.format[1:]:
        if letter.isdigit():
            number += letter
            continue
        size = {"s": 1, "B": 1, "H": 2, "I": 4, "Q": 8}[letter]
        if letter == "s":
            sizes.append(int(number or 1))
        else:
            sizes += [size] * int(number or 1)
        number = ""
    return sizes


def offsets(layout):
    found, at = [], 0
    for size in widths(layout):
        found.append(at)
        at += size
    return found
