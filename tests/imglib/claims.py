# SPDX-License-Identifier: Apache-2.0
"""Who claims each host cluster of a qcow2, counted from the references alone, and what follows:
the refcounts that ought to be stored, leaks, counts that are too low, clusters with two owners."""
from collections import defaultdict, namedtuple

from imglib.qcow2 import (COMPRESSED, EXT_BITMAPS, EXT_CRYPTO, OFFSET_MASK, Claim, div_up)

# cluster -> (stored, referenced) of every cluster where the two differ.
Counts = namedtuple("Counts", "leaks low")


class Claims:
    def __init__(self, image):
        self.image = image
        self.by_cluster = defaultdict(list)
        self.collect()

    def add(self, kind, offset, length, layer=None, guest=None):
        first = offset >> self.image.cluster_bits
        last = (offset + max(length, 1) - 1) >> self.image.cluster_bits
        for cluster in range(first, last + 1):
            self.by_cluster[cluster].append(Claim(kind, layer, guest))

    def collect(self):
        image, header = self.image, self.image.header
        self.add("header", 0, image.cluster_size)
        for layer, place, size in image.layers():
            if size:
                self.add("l1" if layer == "active" else "snapshot-l1", place, size * 8, layer)
            self.collect_layer(layer)
        self.add("refcount-table", header["refcount_table_offset"],
                 header["refcount_table_clusters"] * image.cluster_size)
        for entry in image.refcount_table():
            if entry & OFFSET_MASK:
                self.add("refcount-block", entry & OFFSET_MASK, image.cluster_size)
        if image.snapshots:
            last = image.snapshots[-1]
            end = last.place + len(last.bytes)
            self.add("snapshot-table", header["snapshots_offset"],
                     end - header["snapshots_offset"])
        self.collect_bitmaps()
        crypto = image.extension(EXT_CRYPTO)
        if crypto:
            offset = int.from_bytes(crypto.data[:8], "big")
            self.add("luks", offset, int.from_bytes(crypto.data[8:16], "big"))

    def collect_layer(self, layer):
        image = self.image
        for index, entry in enumerate(image.l1(layer)):
            table = entry & OFFSET_MASK
            if not table:
                continue
            guest = index * image.l2_entries * image.cluster_size
            self.add("l2", table, image.cluster_size, layer, guest)
            for slot in image.table_slots(table, index, layer):
                if slot.entry & COMPRESSED:
                    self.add("compressed", *image.compressed_span(slot.entry), layer, slot.guest)
                elif slot.entry & OFFSET_MASK and not image.data_file:
                    self.add("data", slot.entry & OFFSET_MASK, image.cluster_size, layer,
                             slot.guest)

    def collect_bitmaps(self):
        image = self.image
        extension = image.extension(EXT_BITMAPS)
        if not image.bitmaps:
            return
        self.add("bitmap-directory", int.from_bytes(extension.data[16:24], "big"),
                 int.from_bytes(extension.data[8:16], "big"))
        for bitmap in image.bitmaps:
            self.add("bitmap-table", bitmap.table_offset, bitmap.table_size * 8)
            for entry in bitmap.table:
                if entry & OFFSET_MASK:
                    self.add("bitmap-data", entry & OFFSET_MASK, image.cluster_size)

    def referenced(self, cluster):
        return len(self.by_cluster.get(cluster, ()))

    def counts(self):
        """Compares every stored count with the references."""
        leaks, low, counts = {}, {}, self.image.stored_counts()
        for cluster in sorted(set(counts) | set(self.by_cluster)):
            stored, referenced = counts.get(cluster, 0), self.referenced(cluster)
            if stored > referenced:
                leaks[cluster] = (stored, referenced)
            elif stored < referenced:
                low[cluster] = (stored, referenced)
        return Counts(leaks, low)

    def double_owned(self):
        """Clusters that two different things claim: anything with metadata, two guest offsets
        with one standard cluster, standard with compressed. Several layers may share a claim
        and compressed streams may share a cluster."""
        found = {}
        for cluster, claims in self.by_cluster.items():
            owners = set()
            for claim in claims:
                if claim.kind in ("data", "l2"):
                    owners.add((claim.kind, claim.guest))
                elif claim.kind == "compressed":
                    owners.add(("compressed", None))
                else:
                    owners.add((claim.kind, claim.layer))
            plain = [c for c in claims if c.kind not in ("data", "l2", "compressed")]
            if len(owners) > 1 or len(plain) > 1:
                found[cluster] = claims
        return found

    def allocated_end(self):
        """Just past the last cluster that is referenced or counted."""
        last = max(max(self.by_cluster), max(self.image.stored_counts(), default=0))
        return (last + 1) * self.image.cluster_size

    def free_clusters(self):
        """Clusters inside the file that nobody claims and nothing counts."""
        end = div_up(self.image.file_size, self.image.cluster_size)
        counts = self.image.stored_counts()
        return [c for c in range(end) if c not in self.by_cluster and c not in counts]
