# SPDX-License-Identifier: Apache-2.0
"""The cases of vhd_cases.py that only dynamic and differencing disks can have."""
from imglib.vhd import SATURATED, SECTOR, UNALLOCATED
from imglib.vhd_case import CASES, KB, Case, case, fill


# --- 32-44: dynamic header and where the table is

@case(32, "dynamic", "dyn-header-offset", "corruption", "mended")
def header_offset_in_one(v):
    v.set_footer("end", data_offset=4096)


@case(32, "dynamic", "dyn-header-offset", "corruption", "left", "mended")
def header_offset(v):
    v.set_footer("copy", data_offset=4096)
    v.set_footer("end", data_offset=4096)


@case(33, "dynamic", "dyn-header-cookie", "corruption", "mended")
def header_cookie(v):
    v.set_header(seal=False, cookie=b"********")


@case(33, "dynamic", "dyn-header-cookie", "corruption", "left", "mended")
def header_gone(v):
    fill(v, SECTOR, 1024, 0)


@case(34, "dynamic", "dyn-header-checksum", "corruption", "left", "mended")
def header_checksum(v):
    v.set_header(seal=False, checksum=1)


@case(34, "dynamic", "dyn-header-checksum", "corruption", "left", "mended")
def header_block_size_hit(v):
    v.set_header(seal=False, block_size=2 * v.header.block_size)


@case(35, "dynamic", "dyn-header-version", "corruption", "left", "mended")
def header_version(v):
    v.set_header(version=0x20000)


@case(36, "dynamic", "dyn-header-next", "info")
def header_next(v):
    v.set_header(next=0)


@case(37, "dynamic", "dyn-header-reserved", "warning")
def header_reserved(v):
    v.set_header(reserved2=b"y" * 256)


@case(38, "child", "dyn-metadata-overlap", "corruption", "mended")
def locator_over_table(v):
    locators = v.locators()
    locators[1][4] = 1536
    v.set_locators(locators)


@case(39, "dynamic", "dyn-block-size", "corruption", "left", "mended")
def block_size_odd(v):
    v.set_header(block_size=v.header.block_size + 12345)


@case(39, "dynamic", "dyn-block-size", "corruption", "left", "mended")
def block_size_zero(v):
    v.set_header(block_size=0)


@case(40, "dynamic", "dyn-max-entries-small", "corruption", "left", "mended", "any")
def entries_few(v):
    v.set_header(entries=v.header.entries - 2)


@case(41, "dynamic", "dyn-max-entries-excess", "info")
def entries_many(v):
    v.set_header(entries=v.header.entries + 20)


@case(42, "dynamic", "dyn-parent-fields-set", "warning")
def parent_fields(v):
    v.set_header(parent_id=b"0123456789abcdef")


@case(43, "dynamic", "bat-offset", "corruption", "left", "mended")
def table_unaligned(v):
    v.set_header(table=1537)


@case(43, "dynamic", "bat-offset", "corruption", "left", "mended")
def table_past_end(v):
    v.set_header(table=1 << 50)


@case(44, "empty", "bat-truncated", "corruption", "left", "mended", "lost")
def table_cut(v):
    del v.data[1536 + 1000:]


# --- 45-51: entries

def after(v):
    return len(v.data) // SECTOR


@case(45, "dynamic", "bat-entry-in-metadata", "corruption", "left", "mended", "lost")
def entry_zero(v):
    v.set_entry(v.stored()[1], 0)


@case(45, "dynamic", "bat-entry-in-metadata", "corruption", "mended", content="any")
def entry_in_table(v):
    v.set_entry(v.stored()[1], 3)


@case(46, "dynamic", "bat-entry-past-eof", "corruption", "left", "mended", "any")
def entry_past_end(v):
    v.set_entry(v.stored()[1], after(v) + 5)


@case(47, "dynamic", "bat-entry-tail-truncated", "corruption", "left", "mended", "lost")
def block_cut(v):
    del v.data[v.end - 150 * SECTOR:]  # the last block is hardly in use


@case(48, "dynamic", "bat-entry-overlaps-footer", "corruption", "mended", content="any")
def footer_on_block(v):
    v.data[v.end - SECTOR:] = v.data[v.end:]


def free_entry(v):
    return next(i for i in range(v.header.entries) if v.entry(i) == UNALLOCATED)


@case(49, "dynamic", "bat-entry-duplicate", "corruption", "mended", content="any")
def entry_twice(v):
    v.set_entry(free_entry(v), v.entry(v.stored()[0]))


@case(50, "dynamic", "bat-entry-overlap", "corruption", "mended", content="any")
def entry_overlap(v):
    v.set_entry(free_entry(v), v.entry(v.stored()[0]) + 3)


@case(51, "dynamic", "bat-entry-beyond-size", "warning")
def entry_beyond(v):
    size = v.footer.current_size - v.header.block_size
    cylinders, heads, sectors = SATURATED
    v.set_footer(current_size=size, cylinders=cylinders, heads=heads, sectors=sectors)


# --- 52-59: gaps, bitmaps, data

@case(52, "win", "bitmap-bits-past-size", "info")
def bits_past_size(v):
    used = v.footer.current_size % v.header.block_size // SECTOR
    v.data[v.block(v.header.entries - 1) + used // 8] |= 0x80 >> used % 8


@case(53, "dynamic", "bat-leaked-space", "leak", "mended")
def leak_at_end(v):
    v.insert(v.end, bytes(64 * KB))


@case(53, "dynamic", "bat-leaked-space", "leak", "mended")
def leak_between(v):
    """An empty block that no entry names."""
    free_block(v, v.stored()[0])


@case(53, "dynamic", "bat-leaked-space", "leak", "left", "mended")
def block_lost(v):
    """The only hole and the only orphan belong together."""
    for index in range(v.header.entries):
        if v.entry(index) == UNALLOCATED:
            add_block(v, index)
    v.set_entry(v.stored()[2], UNALLOCATED)


@case(53, "dynamic", "bat-leaked-space", "leak", "left", "left")
def blocks_lost(v):
    for index in v.stored()[1:3]:
        v.set_entry(index, UNALLOCATED)


@case(54, "dynamic", "bat-not-4k-aligned", "info")
def unaligned_blocks(_):
    pass


@case(55, "win", "bitmap-clear-sector-nonzero", "corruption", "mended")
def bits_clear(v):
    at = v.block(v.stored()[0])
    bits = v.header.block_size // SECTOR // 8
    v.data[at:at + bits] = bytes(byte & 0x55 for byte in v.data[at:at + bits])


@case(56, "child", "bitmap-empty-block", "info")
def bitmap_empty(v):
    fill(v, v.block(v.stored()[0]), 512, 0)


@case(57, "child", "bitmap-all-ones-diff", "warning")
def all_ones(v):
    at = v.block(v.stored()[0])
    fill(v, at, v.header.block_size // SECTOR // 8, 0xFF)
    fill(v, at + 512, v.header.block_size, 0)


@case(58, "dynamic", "bitmap-stale-footer", "warning")
def stale_footer(v):
    at = v.block(v.stored()[0]) + 512 + 9 * SECTOR
    v.data[at:at + SECTOR] = v.data[v.end:]


@case(59, "win", "bitmap-padding", "info")
def bitmap_padding(v):
    v.data[v.block(v.stored()[0]) + v.header.block_size // SECTOR // 8 + 1] = 1


# --- 60-66: batmap

@case(60, "tap", "batmap-missing", "warning", "mended")
def batmap_missing(v):
    v.set_batmap(cookie=bytes(8))


@case(61, "tap", "batmap-version", "warning")
def batmap_version(v):
    v.set_batmap(version=0x10007)


@case(62, "tap", "batmap-range", "corruption", "mended")
def batmap_range(v):
    v.set_batmap(offset=1 << 40)


@case(63, "tap", "batmap-checksum", "warning", "mended")
def batmap_checksum(v):
    v.set_batmap(checksum=7)


@case(64, "tap", "batmap-full-unallocated", "corruption", "mended")
def batmap_unallocated(v):
    index = free_entry(v)
    v.data[v.batmap_at + SECTOR + index // 8] |= 0x80 >> index % 8


@case(65, "tap", "batmap-full-bitmap-partial", "corruption", "mended")
def batmap_partial(v):
    index = next(i for i in v.stored() if not v.data[v.batmap_at + SECTOR + i // 8] & 0x80 >> i % 8)
    v.data[v.batmap_at + SECTOR + index // 8] |= 0x80 >> index % 8


@case(66, "tap", "batmap-encrypted", "info")
def batmap_key(v):
    v.set_batmap(key=b"\1" + bytes(64))


# --- 67-77: parent locators

def locator(slot, **change):
    def apply(v):
        locators = v.locators()
        for name, value in change.items():
            locators[slot][("code", "space", "length", "reserved", "offset").index(name)] = value
        v.set_locators(locators)
    return apply


for name, row, code, severity, safe, all_, change in (
        ("locator_code", 67, "locator-code-unknown", "warning", "left", "left",
         {"code": b"\x4d\x16\x32\x20"}),
        ("locator_twice", 68, "locator-duplicate", "warning", "left", "left", {"code": b"W2ku"}),
        ("locator_space", 69, "locator-space", "warning", "mended", "mended", {"space": 513}),
        ("locator_range", 70, "locator-range", "corruption", "left", "mended", {"offset": 1 << 60}),
        ("locator_reserved", 71, "locator-nonzero-none", "info", "left", "left", {"reserved": 3}),
        ("locator_odd", 72, "locator-undecodable", "warning", "left", "left", {"length": 9})):
    CASES.append(Case(name, row, "child", "vhd-" + code, severity, safe, all_, "same",
                      locator(2, **change)))


@case(73, "child", "locator-name-mismatch", "warning")
def names_differ(v):
    v.set_header(parent_name="other.vhd".encode("utf-16-be").ljust(512, b"\0"))


@case(74, "child", "parent-name", "warning", "mended")
def name_missing(v):
    v.set_header(parent_name=bytes(512))


@case(77, "child", "parent-uuid-null", "warning")
def parent_id_null(v):
    v.set_header(parent_id=bytes(16))


def add_block(v, index):
    """Stores zeros at the end of the file for an entry that has none."""
    v.set_entry(index, v.end // SECTOR)
    v.insert(v.end, b"\xff" * 512 + bytes(v.header.block_size))


def free_block(v, index):
    """Moves a block to the end and leaves its old place zeroed behind."""
    at, length = v.block(index), 512 + v.header.block_size
    v.set_entry(index, v.end // SECTOR)
    v.insert(v.end, bytes(v.data[at:at + length]))
    fill(v, at, length, 0)
