# SPDX-License-Identifier: Apache-2.0
"""Makes a dynamic VHD of 2040 GiB, the largest there is, with all blocks stored, in a random order:
tables and footers are real, the blocks are holes. The same bytes every time."""

import array
import random
import struct
import sys

SIZE = 2040 << 30
BLOCK = 2 << 20
SECTOR = 512
BLOCK_SECTORS = 1 + BLOCK // SECTOR  # with its bitmap


def sealed(fields, size, checksum_at):
    data = bytearray(fields.ljust(size, b'\0'))
    struct.pack_into('>I', data, checksum_at, ~sum(data) & 0xFFFFFFFF)
    return bytes(data)


def main():
    blocks = SIZE // BLOCK
    start = (1536 + 4 * blocks + SECTOR - 1) // SECTOR
    places = list(range(blocks))
    random.Random(20220914).shuffle(places)
    table = array.array('I', (start + place * BLOCK_SECTORS for place in places))
    table.byteswap()
    footer = sealed(struct.pack('>8sIIQI4sI4sQQHBBII16s', b'conectix', 2, 0x10000, 512, 0x20000000,
                                b'win ', 0xA0000, b'Wi2k', SIZE, SIZE, 65535, 16, 255, 3, 0,
                                b'imgfsck-bench-01'), 512, 64)
    header = sealed(struct.pack('>8sQQIII', b'cxsparse', (1 << 64) - 1, 1536, 0x10000, blocks,
                                BLOCK), 1024, 36)
    with open(sys.argv[1], 'xb') as file:
        file.write(footer + header + table.tobytes())
        file.seek((start + blocks * BLOCK_SECTORS) * SECTOR)
        file.write(footer)


if __name__ == '__main__':
    main()
