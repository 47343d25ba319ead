# SPDX-License-Identifier: Apache-2.0
"""Small images of unusual geometry, whose disk and snapshots are known, and small overwrites of
their metadata: text, noise, zeros, ones, bits, other metadata, what is moved by a few bytes, cuts.
Unlike imglib/wild.py the damage hits what is in use, and the content is compared, not the bytes."""
import os
import random
import re
from collections import namedtuple

from imglib.claims import Claims
from imglib.programs import copy, qemu_img, qemu_io, run, temp_dir
from imglib.qcow2 import Qcow2

# features: any of snapshots, zlib, zstd, bitmaps, extended, backing, data-file.
Shape = namedtuple("Shape", "cluster_size refcount_bits compat features")
SHAPES = [
    Shape(512, 16, "1.1", ("snapshots",)), Shape(512, 1, "1.1", ()),
    Shape(512, 64, "1.1", ("snapshots", "zlib", "bitmaps")), Shape(1024, 2, "1.1", ("snapshots",)),
    Shape(4096, 16, "0.10", ("snapshots", "zlib")), Shape(4096, 16, "1.1", ("snapshots", "bitmaps")),
    Shape(4096, 4, "1.1", ("zstd", "backing")), Shape(8192, 32, "1.1", ("snapshots", "backing")),
    Shape(16384, 16, "1.1", ("extended", "snapshots")),
    Shape(16384, 8, "1.1", ("extended", "backing", "zlib")),
    Shape(65536, 16, "1.1", ("snapshots", "bitmaps")), Shape(65536, 16, "1.1", ("data-file", "bitmaps")),
    Shape(262144, 16, "1.1", ("snapshots", "zlib")), Shape(65536, 1, "1.1", ("zlib",)),
    Shape(512, 16, "0.10", ("backing", "snapshots")), Shape(32768, 64, "1.1", ("extended", "bitmaps"))]
SNAPSHOTS = {"one": "1", "two": "2"}  # name: id
TEXT = b"The quick brown fox jumps over the lazy dog; 0123456789.\n" * 80


class Maker:
    def __init__(self, home, shape):
        self.home, self.shape = home, shape
        self.path, self.random = home / "disk.qcow2", random.Random(f"1 {shape}")
        cluster = shape.cluster_size
        entries = cluster // (16 if "extended" in shape.features else 8)
        self.size = max(min(3 * entries * cluster + 5 * cluster, 12 << 20), 12 * cluster)
        self.written = set()  # QEMU compresses only what was not there

    def create(self):
        shape, options = self.shape, [f"compat={self.shape.compat}",
                                      f"cluster_size={self.shape.cluster_size}"]
        if shape.compat != "0.10":
            options.append(f"refcount_bits={shape.refcount_bits}")
        for feature, text in (("zstd", "compression_type=zstd"), ("extended", "extended_l2=on"),
                              ("data-file", f"data_file={self.path}.data"),
                              ("backing", f"backing_file={self.home}/back.raw,backing_fmt=raw")):
            if feature in shape.features:
                options.append(text)
        if "backing" in shape.features:
            (self.home / "back.raw").write_bytes(self.random.randbytes(self.size))
        qemu_img("create", "-q", "-f", "qcow2", "-o", ",".join(options), self.path, self.size)

    def command(self, place, data):
        cluster, chance = self.shape.cluster_size, self.random.random()
        first = place not in self.written
        self.written.add(place)
        if chance < 0.08:
            return f"write -z {place * cluster} {cluster}"
        if chance < 0.12 and self.shape.compat != "0.10":
            return f"discard {place * cluster} {cluster}"
        data.write_bytes(self.random.randbytes(512))
        packs = {"zlib", "zstd"} & set(self.shape.features) and cluster > 512
        if packs and first and self.random.random() < 0.6:
            return f"write -c -s {data} {place * cluster} {cluster}"
        if "extended" in self.shape.features and self.random.random() < 0.5:
            begin = self.random.randrange(32)
            length = self.random.randrange(1, 33 - begin)
            return (f"write -s {data} {place * cluster + begin * cluster // 32} "
                    f"{length * cluster // 32}")
        return f"write -s {data} {place * cluster} {cluster}"

    def write(self, count, in_a_row):
        clusters = self.size // self.shape.cluster_size
        start = self.random.randrange(clusters)
        with temp_dir() as folder:
            commands = []
            for k in range(count):
                place = (start + k) % clusters if in_a_row else self.random.randrange(clusters)
                commands.append(self.command(place, folder / str(k)))
            qemu_io(self.path, commands)

    def make(self):
        self.create()
        if "bitmaps" in self.shape.features:
            for name in ("map", "other"):
                qemu_img("bitmap", "--add", "-g", 65536, self.path, name)
        count = 40 if self.shape.cluster_size <= 65536 else 8
        self.write(count, True)
        self.write(count // 2, False)
        if "snapshots" in self.shape.features:
            qemu_img("snapshot", "-c", "one", self.path)
            self.write(count // 4, False)
            self.write(count // 4, True)
            qemu_img("snapshot", "-c", "two", self.path)
            self.write(count // 4, False)
        return self.path


def view(path, raw, snapshot=None):
    """(bytes, places of sectors that cannot be read); None when it does not open."""
    raw.unlink(missing_ok=True)
    layer = ["-l", f"snapshot.name={snapshot}"] if snapshot else []
    done = run("qemu-img", "convert", "--salvage", *layer, "-O", "raw", "-f", "qcow2", path, raw)
    if done.code != 0:
        return None
    return raw.read_bytes(), {int(at) for at in
                              re.findall(r"error while reading offset (\d+)", done.err)}


def differences(old, new):
    """Sectors of the old view that the new one does not show."""
    found, block = [], 1 << 16
    for begin in range(0, len(old[0]), block):
        if not new[1] and old[0][begin:begin + block] == new[0][begin:begin + block]:
            continue
        found += [at for at in range(begin, min(begin + block, len(old[0])), 512)
                  if at not in old[1] and
                  (at in new[1] or old[0][at:at + 512] != new[0][at:at + 512])]
    return found


class Scratch:
    """Places come from the sound image, so that several fit one file."""

    def __init__(self, path, sound, chance):
        self.path, self.random = path, chance
        with Qcow2(sound) as image:
            self.claims = Claims(image).by_cluster
            self.cluster, self.size = image.cluster_size, image.file_size
        self.sound = sound.read_bytes()

    def place(self, kinds=()):
        """(kind, offset) of a cluster of metadata."""
        there = {claim.kind for claims in self.claims.values() for claim in claims}
        kind = self.random.choice(sorted(set(kinds) & there or there - {
            "data", "compressed", "bitmap-data"}))
        return kind, self.cluster * self.random.choice(sorted(
            c for c, claims in self.claims.items()
            if any(k.kind == kind for k in claims) and c * self.cluster < self.size))

    def spot(self, at):
        """Eight bytes in the cluster, mostly some that are in use."""
        data = self.sound[at:at + self.cluster]
        used = [i for i in range(0, len(data), 8) if data[i:i + 8].strip(b"\0")]
        return at + (self.random.choice(used) if used and self.random.random() < 0.9
                     else self.random.randrange(0, max(len(data), 8), 8))

    def put(self, at, data):
        end = os.path.getsize(self.path)
        if at < end:
            with open(self.path, "r+b") as file:
                file.seek(at)
                file.write(data[:end - at])

    def other(self, length, kinds=()):
        at = self.spot(self.place(kinds)[1])
        return self.sound[at:at + length]

    def once(self):
        kind, cluster = self.place()
        how = self.random.choice(("text", "noise", "noise", "zeros", "ones", "copied", "bit", "bit",
                                  "moved", "cut", "sector", "entry", "filled"))
        length, at = self.random.choice((1, 2, 4, 8, 8, 16, 24, 64, 512)), self.spot(cluster)
        if self.random.random() < 0.3:
            at += self.random.randrange(8)
        if kind == "header":
            at, length = self.random.randrange(8, min(self.cluster, 200)), min(length, 16)
        if how == "cut":
            most = max(2, min(self.size // 3, 4 * self.cluster))
            os.truncate(self.path, min(self.size - self.random.randrange(1, most),
                                       os.path.getsize(self.path)))
        elif how == "filled":
            self.put(cluster, self.filling(self.cluster))
        elif how == "sector":
            at = cluster + self.random.randrange(0, self.cluster, 512)
            source = self.place()[1] + self.random.randrange(0, self.cluster, 512)
            self.put(at, self.sound[source:source + 512])
        elif how == "entry":
            self.put(at // 8 * 8, self.other(8, ("l2", "l1", "refcount-table")))
        elif how == "moved":
            self.put(at + self.random.choice((1, 2, 4, 8, 16)), self.sound[at:at + max(length, 16)])
        elif how == "bit":
            byte = (self.sound[at:at + 1] or b"\0")[0] ^ 1 << self.random.randrange(8)
            self.put(at, bytes((byte,)))
        elif how == "copied":
            self.put(at, self.other(length))
        else:
            start = self.random.randrange(60)
            self.put(at, {"text": TEXT[start:start + length], "zeros": bytes(length),
                          "ones": b"\xff" * length,
                          "noise": self.random.randbytes(length)}[how])
        return f"{how} {kind}"

    def filling(self, length):
        text = TEXT * (length // len(TEXT) + 1)
        return self.random.choice((text[:length], bytes(length), b"\xff" * length,
                                   self.random.randbytes(length)))

    def times(self):
        """Damages the image one to four times; returns how."""
        return [self.once() for _ in range(self.random.choice((1, 1, 1, 2, 2, 3, 4)))]


def scratched(home, path, seed):
    """Makes a copy of the sound image in `home` at `path`, damaged; returns how."""
    sound = home / "disk.qcow2"
    copy(sound, path)
    return Scratch(path, sound, random.Random(f"scratch {seed}")).times()
