# SPDX-License-Identifier: Apache-2.0
"""Makes sound qcow2 images with QEMU's own tools. Guest clusters are written in a random order, so
that guest order and host order differ (an identity-mapped image hides wrong mappings), and each
holds bytes that no other cluster holds."""
import os
import random
from collections import namedtuple

from imglib.programs import (ToolFailed, luks_target, qemu_img, qemu_io, run, secret_options,
                             temp_dir)
from imglib.qcow2 import SNAPSHOT_ENTRY, Qcow2

KB, MB = 1024, 1024 * 1024
CLUSTER_SIZES = [512 << n for n in range(13)]  # 512 B .. 2 MiB
REFCOUNT_BITS = [1, 2, 4, 8, 16, 32, 64]
CONTENTS = ["plain", "snapshots", "zlib", "zstd", "extended-l2", "data-file", "data-file-raw",
            "luks", "bitmaps", "backing"]

Recipe = namedtuple("Recipe", "content compat cluster_size refcount_bits",
                    defaults=("plain", "v3", 4096, 16))


def valid(recipe):
    """Whether QEMU can make such an image."""
    if recipe.compat == "v2":
        if recipe.refcount_bits != 16:
            return False
        if recipe.content not in ("plain", "snapshots", "zlib", "luks", "backing"):
            return False
    if recipe.content == "extended-l2" and recipe.cluster_size < 16 * KB:
        return False
    if recipe.content == "snapshots" and recipe.refcount_bits == 1:
        return False
    return True


def layout(recipe):
    """(virtual size, guest clusters to write): three L2 tables' worth, both ends of each."""
    entries = recipe.cluster_size // (16 if recipe.content == "extended-l2" else 8)
    span = entries * recipe.cluster_size
    size = 2 * span + span // 2 + 512 * 3
    last = (size - 1) // recipe.cluster_size
    clusters = {0, 1, entries - 1, entries, entries + 1, 2 * entries - 1, 2 * entries, last}
    return size, clusters


class Maker:
    def __init__(self, path, recipe, seed):
        self.path, self.recipe = str(path), recipe
        self.random = random.Random(f"{seed} {recipe}")
        self.size, edges = layout(recipe)
        self.clusters = set(edges)
        last = (self.size - 1) // recipe.cluster_size
        while len(self.clusters) < min(28, last):
            self.clusters.add(self.random.randrange(last))

    def create(self):
        recipe = self.recipe
        options = [f"compat={recipe.compat}", f"cluster_size={recipe.cluster_size}"]
        if recipe.compat == "v3":
            options.append(f"refcount_bits={recipe.refcount_bits}")
        extra = []
        if recipe.content == "zstd":
            options.append("compression_type=zstd")
        elif recipe.content == "extended-l2":
            options.append("extended_l2=on")
        elif recipe.content.startswith("data-file"):
            # A relative name is looked up where the process runs, so an absolute one.
            options.append(f"data_file={os.path.abspath(self.path)}.data")
            options.append("data_file_raw=" + ("on" if recipe.content.endswith("raw") else "off"))
        elif recipe.content == "luks":
            extra = secret_options()
            options += ["encrypt.format=luks", "encrypt.key-secret=key", "encrypt.iter-time=10"]
        elif recipe.content == "backing":
            base = self.path + ".base"
            run("truncate", "-s", self.size - 512, base, check=True)
            qemu_io(base, ["write -P 0x5b 0 64k"], extra=["-f", "raw", base])
            extra = ["-b", os.path.basename(base), "-F", "raw"]
        command = ["create", "-q", "-f", "qcow2", *extra, "-o", ",".join(options), self.path,
                   self.size]
        for attempt in range(30):
            try:
                qemu_img(*command)
                return
            except ToolFailed as failure:
                # On a busy machine QEMU sometimes cannot time its key derivation.
                if attempt == 29 or "accurate CPU usage" not in str(failure):
                    raise

    def pattern(self, folder):
        name = folder / f"{self.random.getrandbits(64):x}"
        name.write_bytes(self.random.randbytes(512))
        return name

    def write(self, clusters, compressed=()):
        """Writes the clusters in a random order, a few as zeros, a few discarded again."""
        cluster_size, size = self.recipe.cluster_size, self.size
        order = sorted(clusters)
        self.random.shuffle(order)
        with temp_dir() as folder:
            commands = []
            for cluster in order:
                start = cluster * cluster_size
                length = min(cluster_size, size - start)
                flag = "-c " if cluster in compressed and length == cluster_size else ""
                commands.append(f"write {flag}-s {self.pattern(folder)} {start} {length}")
            whole = [c for c in order if (c + 1) * cluster_size <= size]
            if self.recipe.content != "data-file-raw":
                commands += [f"write -z {c * cluster_size} {cluster_size}" for c in whole[3:5]]
                commands += [f"discard {c * cluster_size} {cluster_size}" for c in whole[5:6]]
            extra = luks_target(self.path) if self.recipe.content == "luks" else ()
            qemu_io(self.path, commands, extra)

    def make(self):
        self.create()
        content, clusters = self.recipe.content, self.clusters
        some = set(self.random.sample(sorted(clusters), len(clusters) * 2 // 3))
        if content == "bitmaps":
            granularity = max(64 * KB, self.size // (1 << 20) // 512 * 512)
            granularity = 1 << (granularity - 1).bit_length()
            for name in ("first", "other"):
                qemu_img("bitmap", "--add", "-g", granularity, self.path, name)
            qemu_img("bitmap", "--disable", self.path, "first")
        self.write(clusters, some if content in ("zlib", "zstd") else ())
        if content == "snapshots":
            qemu_img("snapshot", "-c", "first", self.path)
            self.write(some)
            qemu_img("snapshot", "-c", "second one", self.path)
            self.write(set(self.random.sample(sorted(clusters), len(clusters) // 3)))
            # Never more than two: counts of two bits go up to three.
            qemu_img("snapshot", "-d", "first", self.path)
            qemu_img("snapshot", "-c", "third", self.path)
            self.write(set(self.random.sample(sorted(clusters), 4)))
            self.set_dates()

    def set_dates(self):
        """Takes the clock out of the snapshots: the same image every time."""
        with Qcow2(self.path) as image, open(self.path, "r+b") as file:
            for snapshot in image.snapshots:
                for field, value in (("date_sec", 1700000000), ("date_nsec", 0)):
                    at, size = SNAPSHOT_ENTRY[field]
                    file.seek(snapshot.place + at)
                    file.write(value.to_bytes(size, "big"))


def make(path, recipe, seed=1):
    """Makes the image (and `path`.data or `path`.base beside it)."""
    Maker(path, recipe, seed).make()
