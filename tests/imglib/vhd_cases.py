# SPDX-License-Identifier: Apache-2.0
"""One damage for every invariant of VHDs, by its number in the catalogue: what has to be found, how
grave it is, and what each repair does about it. Written from the specification of the repairs, not
from what the product does."""
import imglib.vhd_cases_sparse  # noqa: F401 (registers its cases, too)
from imglib.vhd import FIXED, SECTOR, geometry
from imglib.vhd_case import CASES, KB, case, fill


# --- 1-12: two footers

@case(1, "fixed", "file-too-small", "corruption")
def too_small(v):
    del v.data[300:]


@case(2, "dynamic", "footer-missing", "corruption", "mended")
def footer_missing(v):
    del v.data[v.end:]


@case(2, "fixed", "footer-missing", "corruption", "left", "mended")
def footer_missing_fixed(v):
    del v.data[v.end:]


@case(2, "fixed", "footer-missing", "corruption", "left", "mended")
def footer_overwritten_fixed(v):
    fill(v, v.end, SECTOR, 0x5A)


@case(3, "dynamic", "footer-killed", "warning", "mended")
def footer_killed(v):
    fill(v, v.end, SECTOR, 0xC7)


@case(3, "fixed", "footer-killed", "corruption", "left", "mended")
def footer_killed_fixed(v):
    fill(v, v.end, SECTOR, 0xC7)


@case(4, "dynamic", "footer-poisoned", "corruption", "left", "mended")
def footer_poisoned(v):
    v.data[v.end:v.end + 8] = b"v_poison"


@case(5, "dynamic", "footer-checksum", "corruption", "mended")
def footer_checksum(v):
    v.data[v.end + 50] ^= 0x10


@case(5, "fixed", "footer-checksum", "corruption", "left", "mended")
def footer_checksum_fixed(v):
    v.data[v.end + 50] ^= 0x10


@case(6, "dynamic", "footer-checksum-zero", "corruption", "mended")
def footer_checksum_zero(v):
    v.set_footer("end", seal=False, checksum=0)


@case(7, "dynamic", "footer-copy-missing", "corruption", "mended")
def copy_missing(v):
    fill(v, 0, SECTOR, 0)


@case(7, "dynamic", "footer-copy-missing", "corruption", "left", "mended")
def both_footers_missing(v):
    fill(v, 0, SECTOR, 0)
    del v.data[v.end:]


@case(8, "dynamic", "footer-copy-checksum", "corruption", "mended")
def copy_checksum(v):
    v.data[49] ^= 4


@case(9, "dynamic", "footer-copy-mismatch", "warning", "mended")
def copies_differ_in_time(v):
    v.set_footer("copy", timestamp=1)


@case(9, "dynamic", "footer-copy-mismatch", "corruption", "left", "mended", "any")
def copies_differ_in_size(v):
    v.set_footer("copy", current_size=v.footer.current_size - 64 * KB, timestamp=1)


@case(10, "fixed", "footer-511", "info")
def footer_511(v):
    del v.data[-1:]


@case(11, "dynamic", "file-length-unaligned", "warning")
def length_unaligned(v):
    v.data += b"\xAA" * 100


@case(12, "fixed", "footer-not-at-eof", "warning", "mended")
def not_at_end_fixed(v):
    v.data += b"\xAA" * 1024


@case(12, "dynamic", "footer-not-at-eof", "warning", "mended")
def not_at_end_zeros(v):
    v.data += bytes(4096)


@case(12, "dynamic", "footer-not-at-eof", "warning", "left")
def not_at_end_junk(v):
    v.data += b"junk" * 512


# --- 13-24: fields of the footer

@case(13, "dynamic", "footer-version", "corruption", "left", "mended")
def version(v):
    v.set_footer(version=0x20000)


@case(14, "dynamic", "footer-features", "warning", "mended")
def features_missing(v):
    v.set_footer(features=0)


@case(14, "dynamic", "footer-features", "warning")
def features_unknown(v):
    v.set_footer(features=0x82)


@case(15, "dynamic", "temporary", "info")
def temporary(v):
    v.set_footer(features=3)


@case(16, "dynamic", "type-invalid", "corruption", "left", "mended")
def type_invalid(v):
    v.set_footer(type=7)


@case(16, "dynamic", "type-invalid", "corruption", "mended")
def type_invalid_in_one(v):
    v.set_footer("end", type=7)


@case(17, "dynamic", "type-placement", "corruption", "left", "mended")
def type_fixed(v):
    v.set_footer(type=FIXED)


@case(17, "fixed", "type-placement", "corruption", "left", "mended")
def type_dynamic(v):
    v.set_footer(type=3)


@case(18, "fixed", "fixed-spoofed-header", "warning")
def spoofed(v):
    v.data[:SECTOR] = v.data[v.end:]


@case(19, "fixed", "fixed-data-offset", "info")
def fixed_data_offset(v):
    v.set_footer(data_offset=512)


@case(20, "fixed", "fixed-size", "corruption", "mended")
def fixed_short(v):
    v.set_footer(current_size=v.footer.current_size + 8 * SECTOR)


@case(20, "fixed", "fixed-size", "corruption", "left", "mended", "lost")
def fixed_very_short(v):
    v.set_footer(current_size=v.footer.current_size + (64 << 20))


@case(20, "fixed", "fixed-size", "corruption", "mended")
def fixed_long(v):
    """The geometry says how long the disk is."""
    v.set_footer(current_size=v.footer.current_size - 8 * SECTOR)


@case(21, "dynamic", "footer-reserved", "warning")
def reserved(v):
    v.set_footer(reserved=b"x" * 426)


@case(22, "dynamic", "uuid-null", "warning", "mended")
def uuid_null(v):
    v.set_footer(uuid=bytes(16))


@case(23, "dynamic", "timestamp-future", "info")
def future(v):
    v.set_footer(timestamp=0xFFFFFFF0)


@case(24, "dynamic", "saved-state", "warning")
def saved_state(v):
    v.set_footer(saved=1)


# --- 25-31: sizes

@case(25, "dynamic", "size-zero", "info")
def size_zero(v):
    v.set_footer(current_size=0)


@case(26, "dynamic", "size-unaligned", "warning")
def size_unaligned(v):
    v.set_footer(current_size=v.footer.current_size - 100)


@case(27, "dynamic", "size-limit", "corruption")
def size_limit(v):
    v.set_footer(current_size=0xFF000001 * SECTOR)


@case(28, "dynamic", "original-size", "info")
def original_size(v):
    v.set_footer(original_size=4 * SECTOR)


@case(29, "win", "geometry-mismatch", "warning", "mended")
def geometry_small(v):
    v.set_footer(cylinders=2, heads=4, sectors=17)


@case(30, "seed-fixed", "geometry-exceeds-size", "corruption", "mended")
def geometry_over_footer(_):
    """The base is what the QEMU of 2012 made."""


@case(31, "dynamic", "size-policy-ambiguous", "warning")
def unknown_creator(v):
    cylinders, heads, sectors = geometry(v.footer.current_size // SECTOR - 500)
    v.set_footer(creator=b"abcd", cylinders=cylinders, heads=heads, sectors=sectors)
