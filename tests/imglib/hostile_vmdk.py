# SPDX-License-Identifier: Apache-2.0
"""VMDKs as an attacker would hand them in, each with a harmless twin; part of imglib.hostile."""
import functools
import struct

from imglib.hostile import SIZE, case, changed, patch, raw_disk
from imglib.programs import qemu_img, qemu_io, temp_dir

SECTOR = 512
GRAIN = 128 * SECTOR
CAPACITY, GRAIN_SIZE, ENTRIES = 12, 20, 44  # fields of the header


def vmdk(subformat="monolithicSparse"):
    """An empty one, whose descriptor names the file."""
    def make(path):
        qemu_img("create", "-q", "-f", "vmdk", "-o", f"subformat={subformat}", path, SIZE)
    return make


@functools.cache
def filled_bytes(subformat):
    with temp_dir() as folder:
        raw_disk(folder / "raw")
        qemu_io(None, ["write -P 0x41 1M 256k", "write -P 0x42 9M 512", "write -P 0x43 16776704 512"],
                ["-f", "raw", folder / "raw"])
        qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}",
                 folder / "raw", folder / "disk.vmdk")
        return (folder / "disk.vmdk").read_bytes()


def filled(subformat="monolithicSparse"):
    return lambda path: path.write_bytes(filled_bytes(subformat))


def stream(path):
    """As VMware writes it: where the tables are is said at the end alone."""
    data = bytearray(filled_bytes("streamOptimized"))
    header = bytes(data[:SECTOR])
    data[56:64] = b"\xff" * 8
    data += bytes(-len(data) % SECTOR)
    data += struct.pack("<QII", 1, 0, 3).ljust(SECTOR, b"\0") + header + bytes(SECTOR)
    path.write_bytes(data)


def descriptor(path, old, new):
    """Changes the text in a sparse VMDK; its place stays."""
    with open(path, "r+b") as file:
        file.seek(SECTOR)
        text = file.read(20 * SECTOR)
        changed_text = text.replace(old, new)
        assert changed_text != text
        file.seek(SECTOR)
        file.write(changed_text[:20 * SECTOR])


def said(old, new, base=vmdk()):
    return changed(base, lambda path: descriptor(path, old, new))


def number(path, offset, length=4):
    with open(path, "rb") as file:
        file.seek(offset)
        return int.from_bytes(file.read(length), "little")


def directory(path):
    place = number(path, 56, 8)
    if place == 2 ** 64 - 1:  # the header at the end knows
        place = number(path, path.stat().st_size - 2 * SECTOR + 56, 8)
    return place * SECTOR


def table(path):
    return number(path, directory(path)) * SECTOR


def grains(path):
    """Where the table's entries in use stand."""
    first = table(path)
    return [first + 4 * i for i in range(512) if number(path, first + 4 * i) > 1]


def entry(index, value):
    """Makes a grain table's entry say `value(path)`."""
    return lambda path: patch(path, grains(path)[index], struct.pack("<I", value(path)))


def marker(offset, data, index=1):
    """Changes what stands before a compressed grain."""
    return lambda path: patch(path, number(path, grains(path)[index]) * SECTOR + offset, data)


def behind_the_end(path):
    return path.stat().st_size // SECTOR + 1000


def descriptor_elsewhere(path):
    """The header's descriptor is harmless; QEMU looks for a parent where it always is."""
    data = bytearray(filled_bytes("monolithicSparse"))
    text = data[SECTOR:21 * SECTOR]
    data[28:36] = struct.pack("<Q", len(data) // SECTOR)
    evil = b'CID=1\nparentCID=ffffffff\nparentFileNameHint="/etc/shadow"\n'
    data[SECTOR:21 * SECTOR] = evil.ljust(20 * SECTOR, b"\0")
    path.write_bytes(data + text)


def text_alone(path):
    path.write_text('#\n# a comment\n \nversion=1\nCID=1\nparentCID=ffffffff\n'
                    'createType="monolithicFlat"\nRW 8 FLAT "/etc/shadow" 0\n')


def small_grains(path):
    """One sector a grain: 4 TiB need a directory of 16 million entries."""
    patch(path, CAPACITY, struct.pack("<QQ", (4 << 40) // SECTOR, 1))


def crowded(path):
    """Every entry of a large directory leads to a table of its own, each a sector behind the other,
    full of numbers of sectors."""
    entries, header = 4096, bytearray(filled_bytes("monolithicSparse")[:SECTOR])
    header[8:12] = struct.pack("<I", 1)
    header[CAPACITY:CAPACITY + 8] = struct.pack("<Q", entries * 512 * 128)
    header[56:64] = struct.pack("<Q", 21)
    data = header + filled_bytes("monolithicSparse")[SECTOR:21 * SECTOR]
    first = 21 + entries * 4 // SECTOR
    data += struct.pack(f"<{entries}I", *range(first, first + entries))
    path.write_bytes(data + struct.pack("<I", first) * (128 * (entries + 4)))


def shared_table(path):
    patch(path, CAPACITY, struct.pack("<Q", 2 * SIZE // SECTOR * 4))
    patch(path, directory(path) + 4, struct.pack("<I", number(path, directory(path))))


HINT = b'parentFileNameHint="/etc/shadow"'

# What it names.
case("vmdk-flat", "ref-extent", vmdk("monolithicFlat"), vmdk(), answers="CVE-2022-47951")
case("vmdk-split", "ref-extent", vmdk("twoGbMaxExtentSparse"), vmdk())
case("vmdk-create-type", "ref-descriptor", said(b"monolithicSparse", b"vmfs"), vmdk(),
     answers="CVE-2022-47951")
case("vmdk-extent", "ref-extent", changed(
    vmdk(), lambda path: descriptor(path, b'SPARSE "' + path.name.encode(), b'FLAT "/etc/shadow')),
     vmdk("streamOptimized"), b"/etc/shadow", "CVE-2022-47951")
case("vmdk-extent-tabs", "ref-extent", said(b"\n# Extent", b'\nRDONLY\t8 FLAT\t"a=b"\n# Extent'),
     vmdk())
case("vmdk-extent-climbs", "ref-absolute", said(b'SPARSE "', b'SPARSE "../'), vmdk())
case("vmdk-extent-device", "ref-device", said(b'SPARSE "', b'SPARSE "/dev/sda'), vmdk())
case("vmdk-extent-below", "ref-extent", said(b'SPARSE "', b'SPARSE "sub/'), vmdk())
case("vmdk-extent-size", "damaged", said(b"RW 32768", b"RW 65536"), vmdk(),
     says="the header says")
case("vmdk-parent", "ref-parent", said(b"parentCID=ffffffff", b"parentCID=12345678"), vmdk())
case("vmdk-parent-hint", "ref-parent", said(b"\nddb.", b"\n" + HINT + b"\nddb."), vmdk(), HINT)
case("vmdk-parent-comment", "ref-parent", said(b"\n# The", b"\n# " + HINT + b"\n# The"),
     said(b"\n# The", b'\n# no parent="/etc/shadow"\n# The'), HINT)
case("vmdk-parent-elsewhere", "ref-parent", descriptor_elsewhere, filled(), HINT)
case("vmdk-two-types", "ref-descriptor", said(b"\n# Extent", b'\ncreateType="vmfs"\n# Extent'),
     vmdk())
case("vmdk-type-comment", "ref-descriptor", said(
    b"\nversion", b'\n# createType="vmfs"\nversion'), vmdk())
case("vmdk-text", "ref-extent", text_alone, raw_disk, b"/etc/shadow", "CVE-2022-47951")
case("vmdk-no-size", "ref-descriptor", changed(vmdk(), (CAPACITY, bytes(8))), vmdk())
case("vmdk-behind-text", "remnant", changed(vmdk(), (20 * SECTOR, b"RW 8 FLAT")), vmdk(),
     says="descriptor's end")

# Its header, and the other one.
case("vmdk-version", "feature-unknown", changed(filled(), (4, b"\7")), filled())
case("vmdk-flags", "feature-unknown", changed(filled(), (8, b"\x0b")), filled())
case("vmdk-method", "feature-unknown", changed(filled("streamOptimized"), (77, b"\2")),
     filled("streamOptimized"))
case("vmdk-as-text", "broken-header", changed(filled(), (73, b"\n \n\n")), filled())
case("vmdk-unclean", "time-bomb", changed(filled(), (72, b"\1")), filled())
case("vmdk-size-huge", "dos-size", changed(filled(), (CAPACITY, struct.pack("<Q", 1 << 42))),
     filled())
case("vmdk-size-wraps", "dos-size", changed(filled(), (CAPACITY, b"\xff" * 8)), filled())
case("vmdk-directory-huge", "dos-table", changed(filled(), small_grains), filled())
case("vmdk-grain-huge", "dos-table", changed(filled(), (GRAIN_SIZE, struct.pack("<Q", 1 << 40))),
     filled())
case("vmdk-grain-zero", "mem-safety", changed(filled(), (GRAIN_SIZE, bytes(8))), filled())
case("vmdk-grain-odd", "mem-safety", changed(filled(), (GRAIN_SIZE, b"\x81")), filled())
case("vmdk-entries", "mem-safety", changed(filled(), (ENTRIES, struct.pack("<I", 0xFFFFFFFF))),
     filled())
case("vmdk-footer-missing", "broken-header", changed(filled("streamOptimized"), (56, b"\xff" * 8)),
     filled("streamOptimized"),
     says="is missing")
case("vmdk-footer-differs", "polyglot", changed(stream, lambda path: patch(
    path, path.stat().st_size - 2 * SECTOR + CAPACITY, struct.pack("<Q", 8))), stream)
case("vmdk-footer-circular", "polyglot", changed(stream, lambda path: patch(
    path, path.stat().st_size - 2 * SECTOR + 56, b"\xff" * 8)), stream)
case("vmdk-end-unmarked", "broken-header", changed(stream, lambda path: patch(
    path, path.stat().st_size - 1, b"x")), stream,
     says="its end")

# Its tables.
case("vmdk-directory-outside", "damaged", changed(filled(), (56, b"\xff\xff\xff\x7f")), filled(),
     says="is not in the file")
case("vmdk-table-outside", "damaged", changed(filled(), lambda path: patch(
    path, directory(path), struct.pack("<I", behind_the_end(path)))), filled(),
     says="end of the file: a grain table")
case("vmdk-table-shared", "damaged", changed(filled(), shared_table), filled(),
     says="have one grain table")
case("vmdk-crowded", "dos-table", crowded, filled(), says="than the file has sectors")
case("vmdk-tables-differ", "damaged", changed(filled(), entry(0, lambda path: 0)), filled(),
     says="differ from their copies")
case("vmdk-grain-outside", "damaged", changed(filled(), entry(1, behind_the_end)), filled(),
     says="end of the file: a grain at")
case("vmdk-grain-on-directory", "meta-overlap", changed(filled(), entry(
    1, lambda path: directory(path) // SECTOR)), filled(),
     says="the grain directory")
case("vmdk-grain-on-table", "meta-overlap", changed(filled(), entry(
    1, lambda path: table(path) // SECTOR)), filled(),
     says="a grain table")
case("vmdk-grain-on-text", "name-overlap", changed(filled(), entry(1, lambda path: 1)), filled(),
     says="lies on a grain")
case("vmdk-table-on-text", "name-overlap", changed(filled(), lambda path: patch(
    path, directory(path), struct.pack("<I", 2))), filled(),
     says="a grain table")
case("vmdk-grains-crossed", "damaged", changed(filled(), entry(
    1, lambda path: number(path, grains(path)[2]))), filled(),
     says="two grains at")
case("vmdk-trailing", "remnant", changed(filled(), lambda path: patch(
    path, path.stat().st_size + 512, b"left over")), filled(),
     says="belong to nothing")

# Compressed grains.
case("vmdk-length-huge", "mem-safety", changed(stream, marker(8, b"\xff\xff\xff\xff")), stream,
     answers="CVE-2026-2243")
case("vmdk-length-over", "mem-safety", changed(
    filled("streamOptimized"), marker(8, struct.pack("<I", 2 * GRAIN - 11))),
     filled("streamOptimized"), answers="CVE-2026-2243")
case("vmdk-length-none", "mem-safety", changed(filled("streamOptimized"), marker(8, bytes(4))),
     filled("streamOptimized"))
case("vmdk-length-outside", "damaged", changed(filled("streamOptimized"), marker(
    8, struct.pack("<I", GRAIN + 1000), -1)), filled("streamOptimized"),
     says="compressed bytes at")
case("vmdk-grain-elsewhere", "polyglot", changed(filled("streamOptimized"), marker(0, b"\1")),
     filled("streamOptimized"),
     says="where a grain belongs")
case("vmdk-unmarked", "tables-unchecked", changed(filled("streamOptimized"), (10, b"\1")), stream)
