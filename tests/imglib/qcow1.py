# SPDX-License-Identifier: Apache-2.0
"""qcow version 1 images read from the sheet alone, independently of the tools: who claims which
bytes, where guest data lies, and wounds of every kind."""
import os
from collections import namedtuple

HEADER = {"magic": (0, 4), "version": (4, 4), "backing_file_offset": (8, 8),
          "backing_file_size": (16, 4), "mtime": (20, 4), "size": (24, 8), "cluster_bits": (32, 1),
          "l2_bits": (33, 1), "padding": (34, 2), "crypt_method": (36, 4),
          "l1_table_offset": (40, 8)}
COMPRESSED = 1 << 63

Claim = namedtuple("Claim", "begin end what")
Mapped = namedtuple("Mapped", "guest entry_at begin length compressed")


class Qcow1:
    """The image as bytes. Wounds go to a copy, so that each is dealt to what was sound; save()
    writes that copy."""

    def __init__(self, path):
        self.path = path
        self.data = path.read_bytes()
        self.out = bytearray(self.data)

    def save(self):
        # In place: the file keeps its name and its links.
        with open(self.path, "r+b") as file:
            file.write(self.out)
            file.truncate(len(self.out))
        os.utime(self.path, (1500000000, 1500000000))

    def number(self, at, length=8):
        return int.from_bytes(self.data[at:at + length], "big")

    def put(self, at, value, length=8):
        if at + length <= len(self.out):
            self.out[at:at + length] = (value % (1 << 8 * length)).to_bytes(length, "big")

    def field(self, name):
        return self.number(*HEADER[name])

    def set(self, name, value):
        self.put(HEADER[name][0], value, HEADER[name][1])

    @property
    def cluster(self):
        return 1 << self.field("cluster_bits")

    @property
    def entries(self):
        return 1 << self.field("l2_bits")

    @property
    def l1(self):
        return self.field("l1_table_offset")

    @property
    def slots(self):
        return -(-self.field("size") // (self.cluster * self.entries))

    def tables(self):
        """(slot, offset) of every table that an L1 entry names."""
        found = ((slot, self.number(self.l1 + 8 * slot)) for slot in range(self.slots))
        return [(slot, table) for slot, table in found if table]

    def mapped(self):
        bits = self.field("cluster_bits")
        for slot, table in self.tables():
            for index in range(self.entries):
                raw = self.number(table + 8 * index)
                if not raw:
                    continue
                guest = (slot * self.entries + index) << bits
                if raw & COMPRESSED:
                    begin = raw & ((1 << (63 - bits)) - 1)
                    length = raw >> (63 - bits) & (self.cluster - 1)
                else:
                    begin, length = raw, self.cluster
                yield Mapped(guest, table + 8 * index, begin, length, bool(raw & COMPRESSED))

    def claims(self):
        found = [Claim(0, 48, "header"), Claim(self.l1, self.l1 + 8 * self.slots, "l1")]
        name = self.field("backing_file_offset"), self.field("backing_file_size")
        if all(name):
            found.append(Claim(name[0], name[0] + name[1], "name"))
        found += [Claim(table, table + 8 * self.entries, f"l2[{slot}]")
                  for slot, table in self.tables()]
        found += [Claim(m.begin, m.begin + m.length, f"guest {m.guest:#x}")
                  for m in self.mapped()]
        return sorted(found)

    def owned_twice(self):
        """Pairs of claims that share bytes."""
        pairs, last = [], None
        for claim in self.claims():
            if last and claim.begin < last.end:
                pairs.append((last, claim))
            if not last or claim.end > last.end:
                last = claim
        return pairs

    def contents(self):
        """What is stored for the guest: (place, bytes) of every cluster and stream in the file."""
        return [(m.begin, bytes(self.data[m.begin:m.begin + m.length])) for m in self.mapped()
                if m.begin + m.length <= len(self.data)]

    # Wounds. Each takes a random.Random and says what it did.

    def any_value(self, rng):
        """What a table entry may hold after damage."""
        size = len(self.data)
        return rng.choice((0, rng.getrandbits(64), rng.randrange(4 * size) // 512 * 512,
                           rng.randrange(size), size + rng.randrange(1 << 20) // 4096 * 4096,
                           COMPRESSED | rng.getrandbits(rng.randrange(1, 63)),
                           rng.randrange(size) // self.cluster * self.cluster))

    def hurt_header(self, rng):
        at = rng.randrange(48)
        self.put(at, rng.randrange(256), 1)
        return f"header byte {at}"

    def hurt_l1(self, rng):
        slot = rng.randrange(self.slots)
        self.put(self.l1 + 8 * slot, self.any_value(rng))
        return f"l1[{slot}]"

    def hurt_l2(self, rng):
        tables = self.tables()
        slot, table = rng.choice(tables)
        index = rng.randrange(self.entries)
        self.put(table + 8 * index, self.any_value(rng))
        return f"l2[{slot}][{index}]"

    def hurt_used_entry(self, rng):
        one = rng.choice(list(self.mapped()))
        self.put(one.entry_at, self.any_value(rng))
        return f"entry of {one.guest:#x}"

    def cross_link(self, rng):
        one, other = rng.choice(list(self.mapped())), rng.choice(list(self.mapped()))
        self.put(one.entry_at, self.number(other.entry_at))
        return f"{one.guest:#x} shares with {other.guest:#x}"

    def share_table(self, rng):
        (slot, _), (_, table) = rng.choice(self.tables()), rng.choice(self.tables())
        self.put(self.l1 + 8 * slot, table)
        return f"l1[{slot}] shares a table"

    def lose_table(self, rng):
        slot, _ = rng.choice(self.tables())
        self.put(self.l1 + 8 * slot, 0)
        return f"l1[{slot}] zeroed"

    def flip_flag(self, rng):
        slot, table = rng.choice(self.tables())
        self.put(self.l1 + 8 * slot, table | COMPRESSED)
        return f"l1[{slot}] flagged"

    def data_on_table(self, rng):
        one, (slot, table) = rng.choice(list(self.mapped())), rng.choice(self.tables())
        self.put(one.entry_at, table)
        return f"{one.guest:#x} on l2[{slot}]"

    def table_on_data(self, rng):
        one, (slot, _) = rng.choice(list(self.mapped())), rng.choice(self.tables())
        self.put(self.l1 + 8 * slot, one.begin // self.cluster * self.cluster)
        return f"l2[{slot}] on data"

    def hurt_stream(self, rng):
        streams = [m for m in self.mapped() if m.compressed]
        if not streams:
            return self.hurt_used_entry(rng)
        one = rng.choice(streams)
        for _ in range(rng.choice((1, 1, 20))):
            self.put(one.begin + rng.randrange(one.length), rng.randrange(256), 1)
        return f"stream of {one.guest:#x}"

    def scribble(self, rng):
        at = rng.randrange(len(self.out)) // 512 * 512
        length = min(512 * rng.choice((1, 1, 8)), len(self.out) - at)
        self.out[at:at + length] = rng.choice((bytes(length), rng.randbytes(length),
                                                b"\xff" * length))
        return f"{length} bytes at {at:#x}"

    def truncate(self, rng):
        size = len(self.out) - rng.choice((rng.randrange(len(self.out) - 500),
                                           rng.randrange(min(5000, len(self.out) - 500))))
        del self.out[size:]
        return f"cut to {size}"

    def append(self, rng):
        self.out += rng.choice((bytes, rng.randbytes))(rng.randrange(1, 6000))
        return f"lengthened to {len(self.out)}"

    WOUNDS = (hurt_header, hurt_l1, hurt_l2, hurt_used_entry, hurt_used_entry, cross_link,
              share_table, lose_table, flip_flag, data_on_table, table_on_data, hurt_stream,
              scribble, truncate, append)

    def hurt(self, rng):
        """One to four wounds; what was done."""
        return [rng.choice(self.WOUNDS)(self, rng) for _ in range(rng.choice((1, 1, 2, 3, 4)))]
