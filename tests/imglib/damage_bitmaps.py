# SPDX-License-Identifier: Apache-2.0
"""Ways to damage persistent bitmaps and the LUKS header."""
from imglib.damage_header import header_value
from imglib.patient import Unfit, damage
from imglib.qcow2 import BITMAP_ENTRY, EXT_BITMAPS, EXT_CRYPTO, OFFSET_MASK

BITMAPS = {"content": "bitmaps", "harmless": True}
LUKS = {"content": "luks"}


def bitmap_extension(name, code, change, text):
    """change: the 24 bytes -> other bytes."""
    def apply(p):
        p.change_extension(EXT_BITMAPS, change(p, p.bitmap_extension().data))
    apply.__doc__ = text
    damage(name, code, **BITMAPS)(apply)


def field(data, at, size, change):
    value = int.from_bytes(data[at:at + size], "big")
    return data[:at] + (change(value)).to_bytes(size, "big") + data[at + size:]


bitmap_extension("bitmap-ext-short", "bitmap-ext-length", lambda p, d: d[:20],
                 "a bitmaps extension of 20 bytes")
bitmap_extension("bitmap-ext-long", "bitmap-ext-length", lambda p, d: d + bytes(8),
                 "a bitmaps extension of 32 bytes")
bitmap_extension("bitmap-ext-empty", "bitmap-ext-length", lambda p, d: b"",
                 "a bitmaps extension of no bytes")
bitmap_extension("bitmap-ext-cut", "bitmap-ext-length", lambda p, d: d[:23],
                 "a bitmaps extension of 23 bytes")
bitmap_extension("bitmap-ext-over", "bitmap-ext-length", lambda p, d: d + b"\1",
                 "a bitmaps extension of 25 bytes")
bitmap_extension("bitmap-ext-reserved", "bitmap-ext-reserved",
                 lambda p, d: field(d, 4, 4, lambda v: 7), "a reserved field that is not zero")
bitmap_extension("bitmap-count-zero", "bitmap-count", lambda p, d: field(d, 0, 4, lambda v: 0),
                 "a bitmaps extension of no bitmaps")
bitmap_extension("bitmap-count-high", "bitmap-count",
                 lambda p, d: field(d, 0, 4, lambda v: v + 1), "one bitmap too many")
bitmap_extension("bitmap-count-low", "bitmap-count",
                 lambda p, d: field(d, 0, 4, lambda v: v - 1), "one bitmap too few")
bitmap_extension("bitmap-count-max", "bitmap-count",
                 lambda p, d: field(d, 0, 4, lambda v: 0xFFFFFFFF), "a bitmap count of all ones")
bitmap_extension("bitmap-dir-unaligned", "bitmap-dir-unaligned",
                 lambda p, d: field(d, 16, 8, lambda v: v + 8), "a directory between clusters")
bitmap_extension("bitmap-dir-zero", "bitmap-dir-unaligned",
                 lambda p, d: field(d, 16, 8, lambda v: 0), "a directory at offset 0")
bitmap_extension("bitmap-dir-elsewhere", "bitmap-dir-size",
                 lambda p, d: field(d, 16, 8, lambda v: p.host(p.slot())),
                 "a directory on a guest's data")
bitmap_extension("bitmap-dir-header", "bitmap-dir-unaligned",
                 lambda p, d: field(d, 16, 8, lambda v: 512), "a directory inside the header")
bitmap_extension("bitmap-dir-past-eof", "bitmap-dir-size",
                 lambda p, d: field(d, 16, 8, lambda v: p.past_end()),
                 "a directory behind the end of the file")
bitmap_extension("bitmap-dir-size-high", "bitmap-dir-size",
                 lambda p, d: field(d, 8, 8, lambda v: v + 8), "a directory 8 bytes too long")
bitmap_extension("bitmap-dir-size-low", "bitmap-dir-size",
                 lambda p, d: field(d, 8, 8, lambda v: v - 8), "a directory 8 bytes too short")
bitmap_extension("bitmap-dir-size-zero", "bitmap-dir-size",
                 lambda p, d: field(d, 8, 8, lambda v: 0), "a directory of no bytes")
bitmap_extension("bitmap-dir-size-max", "bitmap-dir-size",
                 lambda p, d: field(d, 8, 8, lambda v: 0xFFFFFFFFFFFFFFF8),
                 "a directory of 2^64 bytes")
header_value("bitmap-auto-unset", "bitmap-auto-unset", "autoclear_features", 0,
             "bitmaps not marked consistent", **BITMAPS)


@damage("bitmap-auto-orphan", "bitmap-auto-orphan", harmless=True)
def _(p):
    """bitmaps marked consistent where there are none"""
    if p.bitmaps:
        raise Unfit("the image has bitmaps")
    p.set_header_bits("autoclear_features", 1)


@damage("bitmap-v2", "bitmap-v2", harmless=True, compat="v2")
def _(p):
    """a bitmap in a version 2 image"""
    if p.header["version"] != 2:
        raise Unfit("the image has not version 2")
    table = p.append_clusters(bytes(8))
    entry = b"".join(value.to_bytes(size, "big") for (_, size), value in
                     zip(BITMAP_ENTRY.values(), (table, 1, 2, 1, 16, 1, 0)))
    p.load()
    directory = p.append_clusters(entry + b"b" + bytes(7))
    p.set_extensions(p.extension_list() + [(EXT_BITMAPS, b"\0\0\0\1" + bytes(4) +
                                            (32).to_bytes(8, "big") +
                                            directory.to_bytes(8, "big"))])


@damage("bitmap-dir-ones", "bitmap-count", "bitmap-dir-size", "bitmap-name", "bitmap-type",
        **BITMAPS)
def _(p):
    """a directory overwritten by ones"""
    data = p.bitmap_extension().data
    p.put(int.from_bytes(data[16:24], "big"), b"\xff" * int.from_bytes(data[8:16], "big"))


@damage("bitmap-dir-half", "bitmap-count", "bitmap-dir-size", "bitmap-name", "bitmap-type",
        **BITMAPS)
def _(p):
    """the second half of a directory overwritten by ones"""
    data = p.bitmap_extension().data
    half = int.from_bytes(data[8:16], "big") // 2
    p.put(int.from_bytes(data[16:24], "big") + half, b"\xff" * half)


@damage("bitmap-entry-padding", "bitmap-entry-padding", **BITMAPS)
def _(p):
    """a byte set in the padding of a directory entry"""
    bitmap = p.bitmap(lambda b: b.padded_size > len(b.bytes))
    p.put(bitmap.place + len(bitmap.bytes), b"\x55")


def entry_field(name, code, field_name, value, text):
    def apply(p):
        bitmap = p.bitmap()
        p.set_bitmap(bitmap, field_name, value(p, bitmap) if callable(value) else value)
    apply.__doc__ = text
    damage(name, code, **BITMAPS)(apply)


entry_field("bitmap-name-empty", "bitmap-name", "name_size", 0, "a bitmap without a name")
entry_field("bitmap-name-long", "bitmap-name", "name_size", 1024, "a name of 1024 letters")
entry_field("bitmap-name-max", "bitmap-name", "name_size", 0xFFFF, "a name of 65535 letters")
entry_field("bitmap-type", "bitmap-type", "type", 2, "a bitmap of an unknown type")
entry_field("bitmap-granularity-low", "bitmap-granularity", "granularity_bits", 8,
            "a granularity of 256 bytes")
entry_field("bitmap-granularity-high", "bitmap-granularity", "granularity_bits", 64,
            "a granularity of 2^64 bytes")
entry_field("bitmap-flags", "bitmap-flags", "flags", lambda p, b: b.fields["flags"] | 1 << 5,
            "an unknown flag of a bitmap")
entry_field("bitmap-extra", "bitmap-extra", "extra_size", 8, "extra data in a directory entry")
entry_field("bitmap-extra-max", "bitmap-extra", "extra_size", 0xFFFFFFFF,
            "4 GiB of extra data in a directory entry")
entry_field("bitmap-extra-flag", "bitmap-extra", "flags", lambda p, b: b.fields["flags"] | 4,
            "a bitmap marked as usable without its extra data")
entry_field("bitmap-table-zero", "bitmap-table-offset", "table_offset", 0,
            "a bitmap table at offset 0")
entry_field("bitmap-table-unaligned", "bitmap-table-offset", "table_offset",
            lambda p, b: b.table_offset + 8, "a bitmap table between clusters")
entry_field("bitmap-table-elsewhere", "bitmap-tentry-reserved", "table_offset",
            lambda p, b: p.host(p.slot()), "a bitmap table on a guest's data")
entry_field("bitmap-table-past-eof", "bitmap-table-offset", "table_offset",
            lambda p, b: p.past_end(), "a bitmap table behind the end of the file")
entry_field("bitmap-table-size-high", "bitmap-table-size", "table_size",
            lambda p, b: b.table_size + 1, "a bitmap table one entry too long")
entry_field("bitmap-table-size-zero", "bitmap-table-size", "table_size", 0,
            "a bitmap table of no entries")
entry_field("bitmap-table-size-max", "bitmap-table-size", "table_size", 0xFFFFFFFF,
            "a bitmap table of 2^32 entries")
entry_field("bitmap-in-use", "bitmap-in-use", "flags", lambda p, b: b.fields["flags"] | 1,
            "a bitmap marked in use")


@damage("bitmap-name-duplicate", "bitmap-name-duplicate", **BITMAPS)
def _(p):
    """two bitmaps with one name"""
    names = {len(b.name): b for b in p.bitmaps}
    bitmap = p.bitmap(lambda b: names[len(b.name)].place != b.place)
    p.put(bitmap.place + len(bitmap.bytes) - len(bitmap.name), names[len(bitmap.name)].name)


def table_entry(name, code, change, text):
    def apply(p):
        bitmap = p.bitmap(lambda b: any(e & OFFSET_MASK for e in b.table))
        index = next(i for i, e in enumerate(bitmap.table) if e & OFFSET_MASK)
        p.put_uint(bitmap.table_offset + index * 8, 8, change(p, bitmap.table[index]))
    apply.__doc__ = text
    damage(name, code, **BITMAPS)(apply)


table_entry("bitmap-tentry-reserved-high", "bitmap-tentry-reserved", lambda p, e: e | 1 << 60,
            "a reserved high bit in a bitmap table")
table_entry("bitmap-tentry-reserved-low", "bitmap-tentry-reserved", lambda p, e: e | 1 << 3,
            "a reserved low bit in a bitmap table")
table_entry("bitmap-tentry-ones", "bitmap-tentry-reserved", lambda p, e: e | 1,
            "the all-ones mark beside an offset in a bitmap table")
table_entry("bitmap-tentry-unaligned", "bitmap-tentry-offset", lambda p, e: e | 512,
            "a bitmap's data between clusters")
table_entry("bitmap-tentry-on-data", "bitmap-tentry-offset", lambda p, e: p.host(p.slot()),
            "a bitmap's data on a guest's data")
table_entry("bitmap-tentry-on-l1", "bitmap-tentry-offset",
            lambda p, e: p.header["l1_table_offset"], "a bitmap's data on the L1 table")
table_entry("bitmap-tentry-past-eof", "bitmap-tentry-offset", lambda p, e: p.past_end(),
            "a bitmap's data behind the end of the file")


@damage("bitmap-tail-bits", "bitmap-tail-bits", **BITMAPS)
def _(p):
    """bits set behind the last one that a bitmap has"""
    bitmap = p.bitmap(lambda b: b.table and b.table[-1] & OFFSET_MASK)
    p.put((bitmap.table[-1] & OFFSET_MASK) + p.cluster_size - 1, b"\x80")


# --- LUKS

def luks_bytes(name, code, at, data, text):
    def apply(p):
        p.put(p.luks_offset() + at, data)
    apply.__doc__ = text
    damage(name, code, **LUKS)(apply)


def luks_length(name, change, text):
    def apply(p):
        p.luks_offset()
        data = p.extension(EXT_CRYPTO).data
        p.change_extension(EXT_CRYPTO, field(data, 8, 8, lambda v: change(p, v)))
    apply.__doc__ = text
    damage(name, "luks-in-file", **LUKS)(apply)


luks_length("luks-length-short", lambda p, v: 500, "a LUKS header of 500 bytes")
luks_length("luks-length-zero", lambda p, v: 0, "a LUKS header of no bytes")
luks_length("luks-length-591", lambda p, v: 591, "a LUKS header one byte short of its fields")
luks_length("luks-length-sector", lambda p, v: v - 512, "a LUKS header one sector too short")
luks_length("luks-length-max", lambda p, v: 0xFFFFFFFFFFFFFFFF, "a LUKS header of 2^64 bytes")
luks_length("luks-past-eof", lambda p, v: p.past_end(), "a LUKS header longer than the file")
luks_bytes("luks-magic", "luks-header", 0, b"LUXS", "a LUKS header with a wrong signature")
luks_bytes("luks-version", "luks-header", 6, b"\0\7", "a LUKS header of version 7")
luks_bytes("luks-cipher", "luks-header", 8, b"rot13\0", "an unknown cipher")
luks_bytes("luks-slot-state", "luks-slot-state", 208 + 48 * 3, b"\1\2\3\4",
           "a key slot neither used nor free")
luks_bytes("luks-slot-state-active", "luks-slot-state", 208, b"\1\2\3\4",
           "the key slot in use neither used nor free")
luks_bytes("luks-slot-iterations", "luks-slot-state", 208 + 4, bytes(4),
           "a key slot in use with no iterations")
luks_bytes("luks-slot-stripes", "luks-slot-layout", 208 + 44, (3999).to_bytes(4, "big"),
           "a key slot with 3999 stripes")
luks_bytes("luks-slot-sector", "luks-slot-layout", 208 + 48 + 40, bytes(4),
           "a key slot whose key lies on the header")
luks_bytes("luks-slot-on-other", "luks-slot-layout", 208 + 40, (8 + 504 * 3).to_bytes(4, "big"),
           "the key slot in use at the place of another one's key")
luks_bytes("luks-slot-past-payload", "luks-slot-layout", 208 + 48 * 7 + 40, b"\0\1\0\0",
           "a key slot behind the place where the keys end")
luks_bytes("luks-payload-zero", "luks-slot-layout", 104, bytes(4), "keys that end at the start")
luks_bytes("luks-payload-max", "luks-in-file", 104, b"\xff" * 4, "keys that end after 2 TiB")
luks_bytes("luks-no-slot", "luks-no-slot", 208, b"\0\0\xde\xad", "no key slot in use")
