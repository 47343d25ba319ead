# SPDX-License-Identifier: Apache-2.0
"""The damaged VHDs among the fixtures: every case of vhd_cases.py, parents that are not what their
children say, and disks that Azure does not take."""
import os
import random

import vhd_rows
from imglib.vhd import Vhd, Writer, random_disk
from imglib.vhd_cases import CASES

FILE = "disk.vhd"
KB, MB = 1024, 1024 * 1024
BLOCK = 64 * KB
SIZE = 10 * BLOCK
EPOCH, WRITTEN = 946684800, 1700000000  # of VHD's time; when parents were last written
FIXTURES = {}  # name -> (options, build(folder))


def fixture(*options):
    def register(function):
        FIXTURES[function.__name__.replace("_", "-")] = (options, function)
        return function
    return register


def put(folder, name, v, written=WRITTEN):
    (folder / name).write_bytes(v.data)
    os.utime(folder / name, (written, written))


# --- every invariant

def add_cases():
    sound = vhd_rows.bases()
    for case in CASES:
        def build(folder, case=case):
            image, _, parent = sound[case.base]
            hurt = Vhd(image.data)
            case.damage(hurt)
            put(folder, FILE, hurt)
            if parent:
                put(folder, "base.vhd", parent)
        FIXTURES[case.name.replace("_", "-")] = (vhd_rows.OPTIONS, build)


add_cases()


# --- parents

def disk(seed, program="qem2", size=SIZE, parent=None):
    return random_disk(random.Random(f"fixture {seed}"), program, size, BLOCK, 0.6, parent)


def child_of(folder, base):
    put(folder, FILE, disk("child", "win", SIZE, ("base.vhd", base.footer.uuid, WRITTEN - EPOCH)))


@fixture("--chain")
def parent_gone(folder):
    child_of(folder, disk("parent"))


@fixture("--chain")
def parent_is_another(folder):
    child_of(folder, disk("parent"))
    put(folder, "base.vhd", disk("another"))


@fixture("--chain")
def parent_written_later(folder):
    base = disk("parent")
    child_of(folder, base)
    put(folder, "base.vhd", base, WRITTEN + 100)


@fixture("--chain")
def parent_written_earlier(folder):
    base = disk("parent")
    child_of(folder, base)
    put(folder, "base.vhd", base, WRITTEN - 100)


@fixture("--chain")
def parent_larger(folder):
    base = disk("parent", size=SIZE + 3 * BLOCK)
    child_of(folder, base)
    put(folder, "base.vhd", base)


@fixture("--chain")
def parent_damaged(folder):
    base = disk("parent")
    child_of(folder, base)
    hurt = Vhd(base.data)
    hurt.set_entry(hurt.stored()[0], hurt.entry(hurt.stored()[1]))
    put(folder, "base.vhd", hurt)


@fixture("--chain")
def parents_in_a_circle(folder):
    for name, other, own, parent in ((FILE, "two.vhd", b"1", b"2"), ("two.vhd", FILE, b"2", b"1")):
        v = disk(name, "win", SIZE, (other, parent * 16, 0))
        v.set_footer(uuid=own * 16)
        put(folder, name, v)


# --- what Azure takes

def fixed(program, size):
    return Writer(program, size, BLOCK, 8).fixed(random.Random(2).randbytes(10000))


@fixture("--profile", "azure")
def azure_not_fixed(folder):
    put(folder, FILE, disk("azure", "win", 4 * MB))


@fixture("--profile", "azure")
def azure_size(folder):
    put(folder, FILE, fixed("win", 4 * MB + 1536))


@fixture("--profile", "azure")
def azure_geometry(folder):
    v = fixed("win", 4 * MB)
    v.set_footer(cylinders=v.footer.cylinders + 1)
    put(folder, FILE, v)
