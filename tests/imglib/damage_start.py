# SPDX-License-Identifier: Apache-2.0
"""Ways to damage the start of an image: header fields that only the tables contradict, the header as
a whole, the first cluster, the first 64 KiB."""
from imglib.damage_header import header_value
from imglib.patient import damage

KB, MB = 1024, 1024 * 1024
FIRST = 64 * KB
LOG = b"Jan 12 03:04:05 guest app[77]: a line of some log that went astray\n"
ANY = ("--format", "qcow2")


def foreign(p, kind, length):
    """So many bytes of what does not belong there."""
    if kind == "zeros":
        return bytes(length)
    if kind == "text":
        return (LOG * (length // len(LOG) + 1))[:length]
    return p.random.randbytes(length)


def overwritten(name, kind, length, text, **base):
    def apply(p):
        size = length(p) if callable(length) else length
        p.put(0, foreign(p, kind, min(size, p.file_size)))
    apply.__doc__ = text
    damage(name, "hdr-magic", options=ANY, **base)(apply)


# --- fields that make sense by themselves

header_value("hdr-cluster-bits-less", "hdr-cluster-bits", "cluster_bits",
             lambda p: p.cluster_bits - 1, "clusters of half their size", cluster_size=FIRST)
header_value("hdr-cluster-bits-more", "hdr-cluster-bits", "cluster_bits",
             lambda p: p.cluster_bits + 1, "clusters of twice their size", cluster_size=16 * KB)
header_value("hdr-refcount-order-more", "hdr-refcount-order", "refcount_order",
             lambda p: p.header["refcount_order"] + 1, "counts of twice their width")
header_value("hdr-refcount-order-less", "hdr-refcount-order", "refcount_order",
             lambda p: p.header["refcount_order"] - 1, "counts of half their width")
header_value("hdr-version-2-of-3", "hdr-version", "version", 2,
             "version 2 named in a version 3 header")
header_value("hdr-version-3-of-2", "hdr-version", "version", 3,
             "version 3 named in a version 2 header", compat="v2")
header_value("hdr-extended-l2-lost", "hdr-incompat-unknown", "incompatible_features",
             lambda p: p.header["incompatible_features"] & ~16,
             "the mark of extended L2 entries gone", content="extended-l2", cluster_size=16 * KB)
header_value("hdr-data-file-set", "hdr-incompat-unknown", "incompatible_features",
             lambda p: p.header["incompatible_features"] | 4,
             "the mark of an external data file where there is none")
header_value("l1-at-data", "hdr-shape-overlap", "l1_table_offset",
             lambda p: p.cluster_of("data") << p.cluster_bits, "the L1 table said to be guest data")
header_value("l1-at-l2", "hdr-shape-overlap", "l1_table_offset",
             lambda p: p.cluster_of("l2") << p.cluster_bits, "an L2 table named as the L1 table",
             cluster_size=FIRST)
header_value("rt-at-l2", "hdr-shape-overlap", "refcount_table_offset",
             lambda p: p.cluster_of("l2") << p.cluster_bits,
             "an L2 table named as the refcount table")


# --- the header, the first cluster, the first 64 KiB

overwritten("start-header-zeros", "zeros", 112, "the header zeroed")
overwritten("start-header-half", "zeros", 48, "the header's first half zeroed")
overwritten("start-sector-random", "random", 512, "random bytes over the first sector",
            content="snapshots", cluster_size=4 * KB)
for kind in ("zeros", "text", "random"):
    overwritten(f"start-cluster-{kind}", kind, lambda p: p.cluster_size,
                f"the first cluster overwritten ({kind})")
    overwritten(f"start-64k-{kind}", kind, FIRST, f"the first 64 KiB overwritten ({kind})",
                cluster_size=FIRST)
overwritten("start-cluster-v2", "text", lambda p: p.cluster_size, "a version 2 header lost",
            compat="v2", cluster_size=512)
overwritten("start-cluster-snapshots", "text", lambda p: p.cluster_size,
            "the first cluster of an image with snapshots lost", content="snapshots",
            cluster_size=512, refcount_bits=8)
overwritten("start-cluster-bitmaps", "text", lambda p: p.cluster_size,
            "the first cluster of an image with bitmaps lost", content="bitmaps")
overwritten("start-cluster-luks", "text", lambda p: p.cluster_size,
            "the first cluster of an encrypted image lost", content="luks")
overwritten("start-cluster-zstd", "random", lambda p: p.cluster_size,
            "the first cluster of an image compressed by zstd lost", content="zstd")
overwritten("start-cluster-extended-l2", "zeros", lambda p: p.cluster_size,
            "the first cluster of an image with extended L2 entries lost", content="extended-l2",
            cluster_size=16 * KB)
overwritten("start-64k-large", "text", FIRST, "the first 64 KiB of clusters of 2 MiB overwritten",
            cluster_size=2 * MB, refcount_bits=64)
