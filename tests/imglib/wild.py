# SPDX-License-Identifier: Apache-2.0
"""qcow2 images that mix features, and damage as accidents do it: writes that went to the wrong
place, were lost or torn, sectors that came back old or as zeros, flipped bits. Knows structures
only by where they lie; tests/imgdamage.py is the other way round, one rule of the format broken each."""
import os
import random
from collections import namedtuple

from imglib.claims import Claims
from imglib.programs import (LONG, ToolFailed, copy, luks_target, qemu_img, qemu_io, secret_options,
                             temp_dir)
from imglib.qcow2 import COPIED, OFFSET_MASK, Qcow2

# features: any of snapshots, zlib, zstd, bitmaps, extended, data-file, luks, lazy.
Mix = namedtuple("Mix", "compat cluster_size refcount_bits features")
MIXES = [
    Mix("1.1", 65536, 16, ("snapshots", "bitmaps")), Mix("1.1", 4096, 16, ("snapshots", "zlib")),
    Mix("0.10", 512, 16, ("snapshots", "zlib")), Mix("1.1", 512, 64, ("bitmaps", "zlib")),
    Mix("1.1", 16384, 8, ("extended", "snapshots", "zlib")), Mix("0.10", 4096, 16, ()),
    Mix("1.1", 2 << 20 if LONG else 256 << 10, 16, ("snapshots",)), Mix("1.1", 4096, 1, ("zlib",)),
    Mix("1.1", 1024, 4, ("snapshots", "lazy")), Mix("1.1", 32768, 32, ("zstd", "snapshots")),
    Mix("1.1", 65536, 16, ("luks", "snapshots")), Mix("1.1", 4096, 16, ("data-file", "bitmaps")),
    Mix("1.1", 2048, 2, ("snapshots", "bitmaps"))]


class WildMaker:
    def __init__(self, path, mix, seed):
        self.path, self.mix = path, mix
        self.random = random.Random(f"{seed} {mix}")
        entries = mix.cluster_size // (16 if "extended" in mix.features else 8)
        self.size = min(2 * entries * mix.cluster_size + 7 * mix.cluster_size, 64 << 20)
        self.size = max(self.size // 512 * 512, 8 * mix.cluster_size)
        last = self.size // mix.cluster_size
        self.written = set()  # QEMU compresses only what was not there
        self.places = sorted({0, last - 1, *(self.random.randrange(last) for _ in range(24))})

    def create(self):
        mix = self.mix
        options = [f"compat={mix.compat}", f"cluster_size={mix.cluster_size}"]
        extra = []
        if mix.compat != "0.10":
            options.append(f"refcount_bits={mix.refcount_bits}")
        for feature, text in (("zstd", "compression_type=zstd"), ("extended", "extended_l2=on"),
                              ("lazy", "lazy_refcounts=on"),
                              ("data-file", f"data_file={os.path.abspath(self.path)}.data")):
            if feature in mix.features:
                options.append(text)
        if "luks" in mix.features:
            extra = secret_options()
            options += ["encrypt.format=luks", "encrypt.key-secret=key", "encrypt.iter-time=10"]
        for attempt in range(30):
            try:
                qemu_img("create", "-q", "-f", "qcow2", *extra, "-o", ",".join(options), self.path,
                         self.size)
                return
            except ToolFailed as failure:
                # On a busy machine QEMU sometimes cannot time its key derivation.
                if attempt == 29 or "accurate CPU usage" not in str(failure):
                    raise

    def write(self, count):
        cluster, commands = self.mix.cluster_size, []
        with temp_dir() as folder:
            for place in self.random.sample(self.places, min(count, len(self.places))):
                name = folder / f"{place}"
                name.write_bytes(self.random.randbytes(512))
                packed = {"zlib", "zstd"} & set(self.mix.features) and self.random.random() < 0.6
                flag = "-c" if packed and place not in self.written else ""
                self.written.add(place)
                commands.append(f"write {flag} -s {name} {place * cluster} {cluster}")
            qemu_io(self.path, commands, luks_target(self.path)
                    if "luks" in self.mix.features else ())

    def make(self):
        self.create()
        if "bitmaps" in self.mix.features:
            qemu_img("bitmap", "--add", "-g", 65536, self.path, "map")
        self.write(16)
        key = luks_target(self.path) if "luks" in self.mix.features else [self.path]
        if "snapshots" in self.mix.features:
            qemu_img("snapshot", "-c", "one", *key)
            self.write(8)
        # What a lost write leaves is the state from before.
        copy(self.path, str(self.path) + ".earlier")
        self.write(5)
        if "snapshots" in self.mix.features:
            qemu_img("snapshot", "-c", "two", *key)
            self.write(4)


class Wound:
    """The accidents. Places come from the sound image, so that several fit one file."""

    def __init__(self, path, sound, earlier, chance):
        self.path, self.random = path, chance
        with Qcow2(sound) as image:
            self.claims = Claims(image).by_cluster
            self.size, self.cluster = image.file_size, image.cluster_size
        with open(earlier, "rb") as file:
            self.earlier = file.read()

    def cluster_of(self, *kinds):
        found = [c for c, claims in self.claims.items() if any(k.kind in kinds for k in claims)
                 and c * self.cluster < self.size]
        if not found:
            raise ToolFailed("nothing of that kind")
        return self.random.choice(sorted(found)) * self.cluster

    def metadata(self):
        kinds = sorted({k.kind for c in self.claims.values() for k in c}
                       - {"data", "compressed", "luks"})
        return self.cluster_of(self.random.choice(kinds))

    def entry(self, place):
        """An offset of eight bytes that are not zero, in the cluster."""
        data = self.read(place, min(self.cluster, 65536))
        found = [i for i in range(0, len(data), 8) if data[i:i + 8].strip(b"\0")]
        return place + (self.random.choice(found) if found else 0)

    def read(self, place, length):
        with open(self.path, "rb") as file:
            file.seek(place)
            return file.read(length)

    def put(self, place, data):
        with open(self.path, "r+b") as file:
            file.seek(place)
            file.write(data)

    # --- accidents

    def flipped_bit(self):
        place = self.entry(self.metadata())
        data = bytearray(self.read(place, 8))
        if len(data) < 8:
            raise ToolFailed("the file ends before")
        bit = self.random.randrange(64)
        data[bit // 8] ^= 1 << bit % 8
        self.put(place, data)

    def lost_write(self):
        place = self.metadata()
        old = self.earlier[place:place + self.cluster]
        self.put(place, old)

    def torn_write(self):
        place = self.metadata()
        cut = self.random.randrange(0, self.cluster, 512)
        self.put(place, self.earlier[place:place + cut])

    def zeroed_sectors(self):
        place = self.metadata() + self.random.randrange(0, self.cluster, 512)
        self.put(place, bytes(512 * self.random.choice((1, 8))))

    def misdirected_write(self):
        source = self.cluster_of("data") if self.random.random() < 0.5 else self.metadata()
        length = self.random.choice((512, self.cluster))
        self.put(self.metadata(), self.read(source, length))

    def swapped_entries(self):
        place = self.cluster_of("l2", "l1", "refcount-table", "snapshot-l1")
        one, two = self.entry(place), self.entry(place)
        a, b = self.read(one, 8), self.read(two, 8)
        self.put(one, b)
        self.put(two, a)

    def copied_entry(self):
        place, other = self.cluster_of("l2"), self.cluster_of("l2", "l1", "refcount-table")
        self.put(self.entry(other), self.read(self.entry(place), 8))

    def wild_pointer(self):
        """An entry that leads to any cluster of the file."""
        place = self.entry(self.cluster_of("l1", "snapshot-l1", "l2", "refcount-table",
                                           "bitmap-table"))
        target = self.random.choice(sorted(self.claims)) * self.cluster
        flag = self.random.choice((0, COPIED))
        self.put(place, (target & OFFSET_MASK | flag).to_bytes(8, "big"))

    def noise(self):
        place = self.metadata() + self.random.randrange(self.cluster)
        self.put(place, self.random.randbytes(self.random.choice((1, 4, 16, 100))))

    def ones(self):
        self.put(self.metadata(), b"\xff" * self.random.choice((8, 512, self.cluster)))

    def header_field(self):
        at, size = self.random.choice(((20, 4), (24, 8), (36, 4), (40, 8), (48, 8), (56, 4),
                                       (60, 4), (64, 8), (72, 8), (80, 8), (88, 8), (96, 4),
                                       (100, 4), (8, 8), (32, 4)))
        value = self.random.choice((0, 1, 3, 0xFFFF, 1 << 20, self.cluster, 3 * self.cluster,
                                    (1 << 8 * size) - 1))
        self.put(at, (value % (1 << 8 * size)).to_bytes(size, "big"))

    def cut(self):
        os.truncate(self.path, self.random.randrange(self.size // 2, self.size))

    def grown(self):
        end = os.path.getsize(self.path)
        self.put(end, self.random.choice((bytes(self.cluster),
                                          self.random.randbytes(self.cluster + 700),
                                          self.read(self.metadata(), self.cluster))))

    def moved_by_sectors(self):
        """A table written 512 bytes off its place."""
        place = self.metadata()
        self.put(place + 512, self.read(place, max(self.cluster - 512, 512)))

    def hurt_payload(self):
        place = self.cluster_of("data", "compressed")
        self.put(place + self.random.randrange(0, self.cluster, 64), self.random.randbytes(64))


ACCIDENTS = sorted(name for name in vars(Wound) if name not in
                   ("cluster_of", "metadata", "entry", "read", "put") and name[0] != "_")


def hurt(path, sound, earlier, chance):
    """Two or three accidents; returns their names."""
    wound, done = Wound(path, sound, earlier, chance), []
    for name in chance.choices(ACCIDENTS, k=chance.choice((1, 2, 2, 3))):
        try:
            getattr(wound, name)()
            done.append(name)
        except ToolFailed:
            continue
    return done
