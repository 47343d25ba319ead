# SPDX-License-Identifier: Apache-2.0
"""How a case of vhd_cases.py is written down."""
from collections import namedtuple

# row: of the catalogue. base: which sound image. safe, all: "mended" (gone afterwards) or "left".
# content: what the disk reads after that repair mended it: "same" as before the damage, "lost" (the
# report names ranges), "any".
Case = namedtuple("Case", "name row base code severity safe all content damage")
CASES = []
KB = 1024


def case(row, base, code, severity, safe="left", all_="", content="same"):
    def register(function):
        CASES.append(Case(function.__name__, row, base, "vhd-" + code, severity, safe,
                          all_ or safe, content, function))
        return function
    return register


def fill(v, at, length, byte):
    v.data[at:at + length] = bytes([byte]) * length
