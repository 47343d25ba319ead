# SPDX-License-Identifier: Apache-2.0
"""What bench/measure.py measures: the images, the commands, and the goals they are held to."""

import dataclasses

QEMU = 'qemu-img check IMAGE'
TUNED = ('qemu-img check --image-opts '
         'driver=qcow2,refcount-cache-size=64M,file.filename=IMAGE')
ONE = 'imgfsck --threads 1 IMAGE'
TWO = 'imgfsck --threads 2 IMAGE'
LINES = ' --max-findings 100000000'

# One L2 table's range in the middle of the disk, and 8 clusters of it.
MIDDLE = 1 << 39
QUERY = ('imgdump --query "select count(*) from mapping where guest_offset >= %d and '
         'guest_offset < %d" IMAGE')


@dataclasses.dataclass
class Goal:
    command: str     # label of the command that is held to it
    than: str        # label of the command that it is compared with
    times: float     # wall time: so many times faster at least; 0: anything
    memory: float | None = None  # peak memory: at most this part of the other's
    name: str = 'goal'
    seconds: float | None = None  # wall time at most, whatever the other takes


@dataclasses.dataclass
class Case:
    name: str
    title: str
    make: str | list # arguments of make_image; or commands that make IMAGE
    commands: dict   # label: command line; all of them are run in turn
    goals: list
    status: dict = dataclasses.field(default_factory=dict)  # label: exit status, where it is not 0
    fresh_copy: bool = False  # every run gets a copy of its own: the commands write
    leaves: tuple = ()        # files that a command makes, taken away after each run
    cold: bool = False        # each run begins with the image out of the page cache
    long: bool = False        # minutes; only with --long or when named
    limit: str = ''           # what a profile shows to bound it, where a goal is missed


def pair(name, title, make, qemu, goals, **more):
    """imgfsck with one and two threads against one command; goals: (times, memory) for each."""
    label = 'qemu-img, tuned' if qemu == TUNED else 'qemu-img'
    held = [Goal(who, label, times, memory)
            for who, (times, memory) in zip(('imgfsck, 1 thread', 'imgfsck, 2 threads'), goals)]
    commands = {label: qemu, 'imgfsck, 1 thread': ONE, 'imgfsck, 2 threads': TWO}
    return Case(name, title, make, commands, held, **more)


# A disk of 4 GiB, all of it text.
TEXT = 'bench_make_text 4096 DIR/text.raw'
CONVERT = 'qemu-img convert -m 16 -W -f raw -O qcow2 %s DIR/text.raw IMAGE'
NO_TEXT = 'rm DIR/text.raw'


def conversion(name, title, options, times):
    """imgio convert and the quickest way that qemu-img has, from IMAGE to a raw file."""
    return Case(name, title, [TEXT, CONVERT % options, NO_TEXT],
                {'qemu-img': 'qemu-img convert -m 16 -W -f qcow2 -O raw IMAGE DIR/out',
                 'imgio': 'imgio convert -f qcow2 -O raw IMAGE DIR/out'},
                [Goal('imgio', 'qemu-img', times)], leaves=('out',))


def deep(threads):
    return f'imgfsck --deep --threads {threads} IMAGE'


SIZES = ('256G', '512G', '1T', '2T')


CASES = [
    pair('contiguous-1t', '1 TiB, contiguous', '--size 1T', QEMU, [(20, .5), (30, .5)]),
    pair('contiguous-8t', '8 TiB, contiguous', '--size 8T', QEMU, [(25, .25), (45, .25)],
         limit='1.25 GiB of tables are copied from the page cache, over one memory bus: a '
               'second thread takes a third off the time, not half.'),
    pair('permuted-1t', '1 TiB, random host order, qemu-img tuned', '--size 1T --permute', TUNED,
         [(35, 1 / 3), (55, 1 / 3)]),
    pair('permuted-128g-default', '128 GiB, random host order, qemu-img with its defaults',
         '--size 128G --permute', QEMU, []),
    pair('permuted-1t-default', '1 TiB, random host order, qemu-img with its defaults',
         '--size 1T --permute', QEMU, [(1000, .5), (1000, .5)], long=True),
    pair('snapshots-1t', '1 TiB, 10 snapshots, contiguous', '--size 1T --snapshots 10', QEMU,
         [(40, 1), (50, 1.2)],
         limit='Counts above 1 take two bytes a cluster: 32 MiB, which the caches do not '
               'hold.'),
    pair('snapshots-permuted-1t', '1 TiB, 10 snapshots, random host order, qemu-img tuned',
         '--size 1T --snapshots 10 --permute', TUNED, [(45, 2 / 3), (60, 2 / 3)],
         limit='Counts above 1 take two bytes a cluster, in no order; the second thread has '
               'buffers of its own.'),
    pair('clusters-4k', '64 GiB, 4 KiB clusters, contiguous', '--size 64G --cluster-bits 12', QEMU,
         [(45, .5), (70, .5)],
         limit='85 % is system time: 49,000 calls of pread(), one for each table of 4 KiB. '
               'Between two tables lie the data of one, so that no call could read two.'),
    pair('clusters-512', '16 GiB, 512-byte clusters, contiguous', '--size 16G --cluster-bits 9',
         QEMU, [(70, .5), (100, .5)],
         limit='As for 4 KiB clusters: a call for each table, here of 512 bytes.'),
    Case('damaged-1t', '1 TiB, random host order, 1 % of the counts wrong, 1000 cross-links; '
         'every error line printed', '--size 1T --permute --damage',
         {'qemu-img, tuned': TUNED, 'imgfsck, 1 thread': ONE + LINES,
          'imgfsck, 2 threads': TWO + LINES, 'imgfsck, 2 threads, 10000 lines': TWO},
         [Goal('imgfsck, 1 thread', 'qemu-img, tuned', 10, .5),
          Goal('imgfsck, 2 threads', 'qemu-img, tuned', 15, .5)],
         {'qemu-img, tuned': 2, 'imgfsck, 1 thread': 4, 'imgfsck, 2 threads': 4,
          'imgfsck, 2 threads, 10000 lines': 4},
         limit='Each of 167,000 findings is kept (550 bytes), sorted and printed by itself '
               'when all lines are asked for. Of the instructions 64 % are the check, half '
               'of that the second walk, for who claims what is claimed twice; 21 % are '
               'sorting, 13 % printing. The last row is with the usual 10,000 lines.'),
    Case('repair-1t', 'repair of that image, with an undo record', '--size 1T --permute --damage',
         {'qemu-img -r all, tuned': TUNED.replace('check', 'check -r all', 1),
          'imgfsck --repair=all': 'imgfsck --repair=all IMAGE'},
         [Goal('imgfsck --repair=all', 'qemu-img -r all, tuned', 10, .5)],
         # qemu-img does not see that clusters with two owners need a second copy.
         {'imgfsck --repair=all': 1}, fresh_copy=True, long=True,
         limit='After every pass the whole image is checked again, in the overlay, and once more '
               'before anything is written; clusters with two owners get a copy each, where '
               'qemu-img raises the count.'),
    Case('query-one-table', 'one L2 table\'s range of 1 TiB, random host order',
         '--size 1T --permute',
         {'qemu-img map': f'qemu-img map --output=json --start-offset={MIDDLE} '
                          f'--max-length={1 << 29} IMAGE',
          'imgdump, one table': QUERY % (MIDDLE, MIDDLE + (1 << 29)),
          'imgdump, 8 clusters': QUERY % (MIDDLE, MIDDLE + (8 << 16)),
          'imgdump, whole disk': QUERY % (0, 1 << 40)},
         [Goal('imgdump, one table', 'imgdump, whole disk', 10, name='no walk of the image')]),
    pair('bitmaps-8t', '8 TiB, contiguous, 4 bitmaps',
         ['bench_make_image --size 8T IMAGE',
          *(f'qemu-img bitmap --add -f qcow2 IMAGE day-{i}' for i in range(4))],
         QEMU, [(25, .25), (45, .25)],
         limit='As for 8 TiB without bitmaps.'),
    pair('cold-1t', '1 TiB, random host order, nothing in the page cache, qemu-img tuned',
         '--size 1T --permute', TUNED, [(8, None), (8, None)], cold=True,
         limit='Both wait for the disk.'),
    pair('cold-4k', '64 GiB, 4 KiB clusters, nothing in the page cache, qemu-img tuned',
         '--size 64G --cluster-bits 12', TUNED, [(60, None), (60, None)], cold=True),
    Case('sizes', 'four sizes in random host order: the cost grows with the size',
         [f'bench_make_image --permute --size {size} DIR/{size}.qcow2' for size in SIZES],
         {size: f'imgfsck --threads 1 DIR/{size}.qcow2' for size in SIZES},
         # Larger arrays fit the caches less well.
         [Goal('2T', '256G', 1 / 16, 8.0, name='linear')]),
    Case('million-findings',
         '64 GiB, 4 KiB clusters, every tenth count wrong: 1.6 million findings',
         '--size 64G --cluster-bits 12 --damage --wrong-every 10',
         {'qemu-img': QEMU, 'imgfsck': 'imgfsck IMAGE', 'imgfsck --json': 'imgfsck --json IMAGE'},
         [Goal('imgfsck', 'qemu-img', 10, None)],
         {'qemu-img': 2, 'imgfsck': 4, 'imgfsck --json': 4}),
    Case('map', 'the map of 256 GiB in random host order: 4 million extents',
         '--size 256G --permute',
         {'qemu-img map': 'qemu-img map --output=json IMAGE',
          'imgdump --map': 'imgdump --map --json IMAGE'},
         [Goal('imgdump --map', 'qemu-img map', 20, .5)]),
    Case('model', 'the whole model of 256 GiB in random host order, 4 million clusters',
         '--size 256G --permute',
         {'qemu-img map': 'qemu-img map --output=json IMAGE',
          'imgdump --db': 'imgdump --db DIR/model.db IMAGE',
          'imgdump --sql': 'imgdump --sql IMAGE',
          'imgdump, all clusters':
              'imgdump --query "select count(*), sum(length) from mapping" IMAGE'},
         [], leaves=('model.db',)),
    Case('vhd-2040g', 'a VHD of 2040 GiB, all blocks stored in random order',
         ['make_vhd.py IMAGE'],
         {'imgfsck': 'imgfsck --format vpc IMAGE', 'imgfsck, 1 thread': ONE},
         [Goal('imgfsck', 'imgfsck', 0, seconds=.1)]),
    Case('rebuild-16t', '16 TiB, contiguous, without any count: all are made anew',
         '--size 16T --no-counts',
         {'qemu-img -r all': 'qemu-img check -r all IMAGE',
          'imgfsck --repair': 'imgfsck --repair IMAGE'},
         [Goal('imgfsck --repair', 'qemu-img -r all', 1, 1)], {'imgfsck --repair': 1},
         fresh_copy=True, long=True),
    Case('deep', 'a disk of 4 GiB, zlib-compressed, with --deep',
         [TEXT, CONVERT % '-c', NO_TEXT], {'1 thread': deep(1), '2 threads': deep(2)},
         [Goal('2 threads', '1 thread', 1.6)]),
    conversion('convert-zlib', 'a disk of 4 GiB, zlib-compressed, into a raw file', '-c', 2),
    conversion('convert-zstd', 'a disk of 4 GiB, zstd-compressed, into a raw file',
               '-c -o compression_type=zstd', 1.7),
    Case('read', 'reading 4 GiB of uncompressed clusters from start to end',
         [TEXT, CONVERT % '', NO_TEXT],
         {'cat of the file': 'cat IMAGE', 'imgio read': 'imgio read IMAGE 0 4G',
          'qemu-img dd': 'qemu-img dd -f qcow2 -O raw bs=2M if=IMAGE of=DIR/out'},
         [Goal('imgio read', 'cat of the file', 1 / 1.1)], leaves=('out',)),
    Case('compare', 'comparing two images of 4 GiB with the same contents',
         [TEXT, CONVERT % '', NO_TEXT, 'cp IMAGE DIR/other.qcow2'],
         {'cat of both files': 'cat IMAGE DIR/other.qcow2',
          'imgio compare': 'imgio compare IMAGE DIR/other.qcow2',
          'qemu-img compare': 'qemu-img compare -f qcow2 -F qcow2 IMAGE DIR/other.qcow2'},
         [Goal('imgio compare', 'cat of both files', 1)]),
]

# What must hold whatever else does: less than the goals, which are what the prototype showed.
FLOORS = {
    'contiguous-1t': [Goal('imgfsck, 1 thread', 'qemu-img', 8, 1, 'floor'),
                      Goal('imgfsck, 2 threads', 'qemu-img', 8, 1, 'floor')],
    'convert-zlib': [Goal('imgio', 'qemu-img', 1, name='floor')],
    'convert-zstd': [Goal('imgio', 'qemu-img', 1, name='floor')],
    'permuted-1t-default': [Goal('imgfsck, 1 thread', 'qemu-img', 500, 1, 'floor'),
                            Goal('imgfsck, 2 threads', 'qemu-img', 500, 1, 'floor')],
}
