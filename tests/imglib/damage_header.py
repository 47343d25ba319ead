# SPDX-License-Identifier: Apache-2.0
"""Ways to damage the header, its extensions and the backing name."""
from imglib.patient import Unfit, damage
from imglib.qcow2 import (EXT_BACKING_FORMAT, EXT_BITMAPS, EXT_CRYPTO, EXT_DATA_FILE,
                          EXT_FEATURES)

CLUSTER_64K = 65536


def header_value(name, code, field, value, text, **more):
    """Registers a recipe that sets one header field; a callable value gets the patient."""
    def apply(p):
        p.set_header(**{field: value(p) if callable(value) else value})
    apply.__doc__ = text
    damage(name, code, **more)(apply)


def header_bits(name, code, field, bits, text, **more):
    def apply(p):
        p.set_header_bits(field, bits)
    apply.__doc__ = text
    damage(name, code, **more)(apply)


header_value("hdr-magic", "hdr-magic", "magic", 0x514649FA, "the signature with one bit wrong",
             options=("--format", "qcow2"))
header_value("hdr-version-4", "hdr-version", "version", 4, "version 4")
header_value("hdr-version-0", "hdr-version", "version", 0, "version 0",
             options=("--format", "qcow2"))
header_value("hdr-cluster-bits-8", "hdr-cluster-bits", "cluster_bits", 8, "clusters of 256 bytes")
header_value("hdr-cluster-bits-22", "hdr-cluster-bits", "cluster_bits", 22, "clusters of 4 MiB")
header_value("hdr-cluster-bits-max", "hdr-cluster-bits", "cluster_bits", 0xFFFFFFFF,
             "cluster_bits of all ones")
header_value("hdr-length-short", "hdr-length-short", "header_length", 96,
             "a version 3 header that claims 96 bytes")
header_value("hdr-length-unaligned", "hdr-length-unaligned", "header_length", 105,
             "a header length that is no multiple of 8", harmless=True)
header_value("hdr-length-over", "hdr-length-over", "header_length",
             lambda p: p.cluster_size + 8, "a header longer than its cluster")
header_bits("hdr-incompat-unknown", "hdr-incompat-unknown", "incompatible_features", 1 << 40,
            "an unknown feature that no reader may ignore")
header_bits("hdr-compat-unknown", "hdr-compat-unknown", "compatible_features", 1 << 33,
            "an unknown feature that readers may ignore", harmless=True)
header_bits("hdr-autoclear-unknown", "hdr-autoclear-unknown", "autoclear_features", 1 << 17,
            "an unknown feature that writers switch off", harmless=True)
header_bits("hdr-dirty", "hdr-dirty", "incompatible_features", 1, "the dirty mark", harmless=True)
header_bits("hdr-corrupt", "hdr-corrupt", "incompatible_features", 2, "the corrupt mark",
            harmless=True)
header_value("hdr-refcount-order", "hdr-refcount-order", "refcount_order", 7,
             "counts of 128 bits")
header_value("hdr-size-unaligned", "hdr-size-unaligned", "size", lambda p: p.size + 100,
             "a disk size that is no multiple of 512")
header_value("hdr-size-one", "hdr-size-unaligned", "size", lambda p: p.size // 512 * 512 - 511,
             "a disk size one byte above a multiple of 512")
header_value("hdr-size-cap", "hdr-size-cap", "size", 1 << 62,
             "a disk size that no L1 table can map")
header_value("hdr-crypt-method", "hdr-crypt-method", "crypt_method", 3,
             "an unknown way of encryption")
header_value("hdr-crypt-method-luks", "hdr-crypt-method", "crypt_method", 3,
             "an unknown way of encryption in a LUKS image", content="luks")
header_value("hdr-crypt-method-max", "hdr-crypt-method", "crypt_method", 0xFFFFFFFF,
             "a way of encryption of all ones")
header_value("hdr-crypt-method-none", "ext-crypto-missing", "crypt_method", 2,
             "LUKS named in an image that is not encrypted")
header_value("hdr-compression-flag-clear", "hdr-compression-flag", "compression_type", 1,
             "zstd named without the feature bit", content="zlib")
header_bits("hdr-compression-flag-set", "hdr-compression-flag", "incompatible_features", 8,
            "the feature bit of another compression with zlib named", content="zlib")
header_value("hdr-compression-type", "hdr-compression-type", "compression_type", 2,
             "an unknown compression", content="zstd")
header_bits("hdr-extl2-cluster", "hdr-extl2-cluster", "incompatible_features", 16,
            "extended L2 entries with clusters too small for them")
header_bits("hdr-raw-no-datafile", "hdr-raw-no-datafile", "autoclear_features", 2,
            "a raw data file promised where there is none")
header_value("hdr-overlap-l1-reftable", "hdr-shape-overlap", "l1_table_offset",
             lambda p: p.header["refcount_table_offset"],
             "L1 and refcount table at one place")
header_value("hdr-overlap-snapshots-l1", "hdr-shape-overlap", "snapshots_offset",
             lambda p: p.header["l1_table_offset"], "snapshot table on the L1 table",
             content="snapshots")


@damage("hdr-padding", "hdr-padding", harmless=True)
def _(p):
    """a byte set in the header's padding"""
    p.put(107, b"\x01")


@damage("hdr-raw-backing", "hdr-raw-backing", content="data-file-raw")
def _(p):
    """a backing file under a raw data file"""
    name = p.path + ".base"
    with open(name, "wb") as base:
        base.truncate(p.size)
    p.set_extensions(p.extension_list(), name.rsplit("/", 1)[-1].encode())


@damage("hdr-area-junk", "hdr-area-junk", harmless=True)
def _(p):
    """bytes behind the end of the header extensions"""
    p.put(p.cluster_size - 300, b"left over from somewhere")


# --- extensions

@damage("ext-overrun", "ext-overrun", cluster_size=CLUSTER_64K)
def _(p):
    """an extension longer than its room"""
    extension = p.choose(p.extensions, "header extension")
    p.put_uint(extension.place + 4, 4, 0x7FFFFFF0)


@damage("ext-overrun-first", "ext-overrun", content="bitmaps", cluster_size=CLUSTER_64K,
        harmless=True)
def _(p):
    """an extension longer than its room, others behind it"""
    if not p.extensions:
        raise Unfit("the image has no header extension")
    p.put_uint(p.extensions[0].place + 4, 4, 0x10000)


@damage("ext-end-long", "ext-overrun", cluster_size=CLUSTER_64K, harmless=True)
def _(p):
    """the end of the extensions has a length, and a long one"""
    end = p.header["header_length"]
    for extension in p.extensions:
        end = extension.place + 8 + (len(extension.data) + 7) // 8 * 8
    p.put_uint(end + 4, 4, 0x4000000)


@damage("ext-duplicate-same", "ext-duplicate", content="backing", harmless=True)
def _(p):
    """the backing format recorded twice, the same both times"""
    p.set_extensions(p.extension_list() + [(EXT_BACKING_FORMAT, b"raw")])


@damage("ext-duplicate-other", "ext-duplicate", content="backing")
def _(p):
    """the backing format recorded twice, with two values"""
    p.set_extensions(p.extension_list() + [(EXT_BACKING_FORMAT, b"qcow2")])


@damage("ext-no-end", "ext-no-end", harmless=True)
def _(p):
    """an extension that fills the room to the end"""
    if p.extensions:
        raise Unfit("the image has extensions already")
    start = p.header["header_length"]
    p.put_uint(start, 4, 0x7E571234)
    p.put_uint(start + 4, 4, p.cluster_size - start - 8)


def feature_table(name, change, text):
    def apply(p):
        table = bytearray(dict(p.extension_list()).get(EXT_FEATURES, b""))
        if not table:
            raise Unfit("the image has no feature names")
        p.change_extension(EXT_FEATURES, bytes(change(table)))
    apply.__doc__ = text
    damage(name, "ext-feature-table", harmless=True, cluster_size=CLUSTER_64K)(apply)


def changed(table, at, value):
    table[at] = value
    return table


feature_table("ext-feature-length", lambda t: t[:-1], "a feature table that ends inside an entry")
feature_table("ext-feature-type", lambda t: changed(t, 48, 3), "a feature of an unknown type")
feature_table("ext-feature-bit", lambda t: changed(t, 49, 64), "a name for feature bit 64")


@damage("ext-backing-format-long", "ext-backing-format-long", content="backing")
def _(p):
    """a backing format of 20 letters"""
    p.change_extension(EXT_BACKING_FORMAT, b"raw-but-with-a-tail!")


@damage("ext-backing-format-orphan", "ext-backing-format-orphan", harmless=True)
def _(p):
    """a backing format without a backing file"""
    p.set_extensions(p.extension_list() + [(EXT_BACKING_FORMAT, b"raw")])


@damage("ext-datafile-orphan", "ext-datafile-orphan", harmless=True)
def _(p):
    """a data file named in an image that has none"""
    p.set_extensions(p.extension_list() + [(EXT_DATA_FILE, b"elsewhere.raw")])


@damage("ext-crypto-missing", "ext-crypto-missing", content="luks")
def _(p):
    """the pointer to the LUKS header gone"""
    p.luks_offset()
    p.set_extensions([(k, d) for k, d in p.extension_list() if k != EXT_CRYPTO])


@damage("ext-crypto-orphan", "ext-crypto-orphan", content="luks")
def _(p):
    """a LUKS header in an image that says it is not encrypted"""
    p.luks_offset()
    p.set_header(crypt_method=0)


def crypto_extension(name, code, change, text):
    def apply(p):
        p.luks_offset()
        p.change_extension(EXT_CRYPTO, change(p, p.extension(EXT_CRYPTO).data))
    apply.__doc__ = text
    damage(name, code, content="luks")(apply)


crypto_extension("ext-crypto-empty", "ext-crypto-shape", lambda p, d: b"",
                 "a pointer to the LUKS header of no bytes")
crypto_extension("ext-crypto-15", "ext-crypto-shape", lambda p, d: d[:15],
                 "the pointer to the LUKS header one byte short")
crypto_extension("ext-crypto-24", "ext-crypto-shape", lambda p, d: d + bytes(8),
                 "the pointer to the LUKS header too long")
crypto_extension("ext-crypto-elsewhere", "luks-header",
                 lambda p, d: p.host(p.slot()).to_bytes(8, "big") + d[8:],
                 "the pointer to the LUKS header leading to a guest's data")
crypto_extension("ext-crypto-zero", "luks-header", lambda p, d: bytes(8) + d[8:],
                 "the pointer to the LUKS header leading to the image's header")
crypto_extension("ext-crypto-past-eof", "luks-in-file",
                 lambda p, d: p.past_end().to_bytes(8, "big") + d[8:],
                 "a LUKS header behind the end of the file")


@damage("ext-crypto-length", "ext-crypto-shape", content="luks")
def _(p):
    """the pointer to the LUKS header cut short"""
    p.luks_offset()
    p.change_extension(EXT_CRYPTO, p.extension(EXT_CRYPTO).data[:12])


@damage("ext-crypto-unaligned", "ext-crypto-shape", content="luks")
def _(p):
    """a LUKS header at an offset between clusters"""
    moved = (p.luks_offset() + 512).to_bytes(8, "big")
    p.change_extension(EXT_CRYPTO, moved + p.extension(EXT_CRYPTO).data[8:])


@damage("ext-bitmaps-duplicate", "ext-duplicate", content="bitmaps", harmless=True)
def _(p):
    """the bitmaps extension twice"""
    p.set_extensions(p.extension_list() + [(EXT_BITMAPS, p.bitmap_extension().data)])


# --- the backing name

header_value("backing-offset-header", "backing-offset", "backing_file_offset", 8,
             "a backing name inside the header", content="backing")
header_value("backing-offset-over", "backing-offset", "backing_file_offset",
             lambda p: p.cluster_size + 16, "a backing name outside cluster 0", content="backing")
header_value("backing-offset-end", "backing-offset", "backing_file_offset",
             lambda p: p.cluster_size, "a backing name behind cluster 0", content="backing")
header_value("backing-offset-max", "backing-offset", "backing_file_offset", 0xFFFFFFFFFFFFFFFF,
             "a backing name at 2^64", content="backing")
header_value("backing-offset-extensions", "backing-offset", "backing_file_offset",
             lambda p: p.header["header_length"] + 8, "a backing name inside the extensions",
             content="backing", cluster_size=CLUSTER_64K)
header_value("backing-size-nul", "backing-size", "backing_file_size",
             lambda p: p.header["backing_file_size"] + 3, "a backing name with zeros at its end",
             content="backing", harmless=True)
header_value("backing-size-zero", "backing-size", "backing_file_size", 0,
             "a backing name of no letters", content="backing")
header_value("backing-size-1024", "backing-size", "backing_file_size", 1024,
             "a backing name of 1024 letters", content="backing")
header_value("backing-size-max", "backing-size", "backing_file_size", 0xFFFFFFFF,
             "a backing name of 4 GiB", content="backing")


@damage("backing-lost", "backing-offset", content="backing")
def _(p):
    """neither place nor length of the backing name"""
    p.set_header(backing_file_offset=4, backing_file_size=0xFFFF)


@damage("backing-missing", "backing-missing", content="backing")
def _(p):
    """a backing file that is not there"""
    if not p.header["backing_file_size"]:
        raise Unfit("the image has no backing file")
    p.put(p.header["backing_file_offset"] + p.header["backing_file_size"] - 1, b"?")
