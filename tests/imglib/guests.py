# SPDX-License-Identifier: Apache-2.0
"""Disks with file systems in them, made by their own tools, as images whose findings concern every
byte of the guest and change none."""
import random
import struct

from imglib.programs import qemu_img, run

CLUSTER = 65536
COPIED = 1 << 63


def number(path, offset):
    with open(path, "rb") as file:
        file.seek(offset)
        return struct.unpack(">Q", file.read(8))[0]


def l2_entry(image, cluster):
    """Where the entry of this guest cluster is (64 KiB clusters)."""
    l1 = number(image, 40)
    return (number(image, l1 + 8 * (cluster >> 13)) & ~COPIED) + 8 * (cluster & 8191)


def set_entry(image, cluster, value):
    at = l2_entry(image, cluster)
    with open(image, "r+b") as file:
        file.seek(at)
        file.write(struct.pack(">Q", value))


def concern(raw, image, cluster=CLUSTER):
    """The disk as a qcow2 whose entries lack a flag: every cluster has a finding, and reads."""
    qemu_img("convert", "-S", "0", "-f", "raw", "-O", "qcow2", "-o", f"cluster_size={cluster}", raw,
             image)
    data = bytearray(image.read_bytes())
    count, l1 = struct.unpack_from(">I", data, 36)[0], struct.unpack_from(">Q", data, 40)[0]
    for table in struct.unpack_from(f">{count}Q", data, l1):
        if table:
            entries = struct.unpack_from(f">{cluster // 8}Q", data, table & ~COPIED)
            struct.pack_into(f">{cluster // 8}Q", data, table & ~COPIED,
                             *(entry & ~COPIED for entry in entries))
    image.write_bytes(data)


def lose_block(raw, image, block):
    """The disk as a dynamic VHD whose block of 2 MiB is to be found behind the file's end."""
    qemu_img("convert", "-f", "raw", "-O", "vpc", "-o", "force_size=on", raw, image)
    with open(image, "r+b") as file:
        file.seek(512 + 16)
        table = struct.unpack(">Q", file.read(8))[0]
        file.seek(table + 4 * block)
        file.write(struct.pack(">I", 1 << 28))


def lose(raw, image, clusters):
    """The disk as a qcow2 whose mappings of these guest clusters point behind its end."""
    qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, image)
    for cluster in clusters:
        assert number(image, l2_entry(image, cluster)) != 0, cluster
        set_entry(image, cluster, COPIED | 1 << 40 | cluster << 16)


def ext(raw, size="32M", kind="ext4", tree=None, options=()):
    run("truncate", "-s", size, raw, check=True)
    words = ["-d", tree] if tree else []
    run(f"mkfs.{kind}", "-q", "-F", *options, *words, raw, check=True)


def debugfs(raw, *commands):
    script = "".join(f"{command}\n" for command in commands)
    return run("debugfs", "-w", "-f", "-", raw, stdin=script.encode(), check=True).out


def fill(folder, files, seed=5):
    """Files {name: bytes} of noise in a new folder."""
    rand = random.Random(seed)
    for name, length in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rand.randbytes(length))


def partitioned(whole, table, parts, size):
    """A disk with a partition table ('dos', 'gpt') and these (start sector, raw disk) in it."""
    run("truncate", "-s", size, whole, check=True)
    lines = [f"label: {table}"]
    for start, raw in parts:
        lines.append(f"start={start}, size={raw.stat().st_size // 512}")
    run("sfdisk", "-q", whole, stdin="\n".join(lines).encode(), check=True)
    with open(whole, "r+b") as file:
        for start, raw in parts:
            file.seek(start * 512)
            file.write(raw.read_bytes())


class Exfat:
    """A fresh exFAT file system (mkfs.exfat), to which files are added by hand: no tool of Debian
    does that without mounting it."""

    def __init__(self, raw, size="32M"):
        run("truncate", "-s", size, raw, check=True)
        run("mkfs.exfat", raw, check=True)
        self.raw = raw
        with open(raw, "rb") as file:
            boot = file.read(512)
        self.sector, self.cluster = 1 << boot[108], 1 << boot[108] << boot[109]
        self.heap = struct.unpack_from("<I", boot, 88)[0] * self.sector
        self.fat = struct.unpack_from("<I", boot, 80)[0] * self.sector
        self.root = struct.unpack_from("<I", boot, 96)[0]
        self.bitmap, self.at = None, self.place(self.root)
        data = raw.read_bytes()
        while data[self.at] != 0:
            if data[self.at] == 0x81:
                self.bitmap = self.place(struct.unpack_from("<I", data, self.at + 20)[0])
            self.at += 32
        self.next = self.root + 10  # free clusters, with some room in front

    def place(self, cluster):
        return self.heap + (cluster - 2) * self.cluster

    def add(self, name, content):
        """Where the content lies, in one piece."""
        count = -(-len(content) // self.cluster)
        first, self.next = self.next, self.next + count + 3
        text = name.encode("utf-16-le")
        names = [text[i:i + 30].ljust(30, b"\0") for i in range(0, len(text), 30)]
        day = (45 << 9 | 1 << 5 | 1) << 16  # 2025
        entries = [struct.pack("<BBHHHIII", 0x85, 1 + len(names), 0, 0x20, 0, day, day,
                               day).ljust(32, b"\0"),
                   struct.pack("<BBBBHHQIIQ", 0xc0, 3, 0, len(name), self.name_hash(text), 0,
                               len(content), 0, first, len(content))]
        entries += [b"\xc1\0" + part for part in names]
        total = 0
        for i, byte in enumerate(b"".join(entries)):
            if i not in (2, 3):
                total = ((total << 15 | total >> 1) + byte) & 0xffff
        entries[0] = entries[0][:2] + struct.pack("<H", total) + entries[0][4:]
        with open(self.raw, "r+b") as file:
            file.seek(self.at)
            file.write(b"".join(entries))
            self.at += 32 * len(entries)
            file.seek(self.place(first))
            file.write(content)
            for cluster in range(first, first + count):
                file.seek(self.bitmap + (cluster - 2) // 8)
                byte = file.read(1)[0] | 1 << (cluster - 2) % 8
                file.seek(self.bitmap + (cluster - 2) // 8)
                file.write(bytes([byte]))
        return self.place(first)

    @staticmethod
    def name_hash(text):
        total = 0
        for byte in text.decode("utf-16-le").upper().encode("utf-16-le"):
            total = ((total << 15 | total >> 1) + byte) & 0xffff
        return total
