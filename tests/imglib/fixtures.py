# SPDX-License-Identifier: Apache-2.0
"""The damaged images that tests/fixtures.py holds imgfsck to, by format and name. Each is made anew,
and is the same on every machine and in every folder."""
import contextlib
import pathlib
import shutil
import tempfile
import threading
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor

import imgdamage  # noqa: F401  registers the recipes
from imglib import fixtures_cow, fixtures_qcow1, fixtures_vhd, patient
from imglib.incidents import INCIDENTS, strike
from imglib.make import Recipe, make
from imglib.patient import Patient
from imglib.programs import copy
from imglib.qcow2 import EXT_DATA_FILE

# file: the image's name. base: what it is made from, a key of `Bases`, or None.
# build(folder): puts the damaged image and what belongs to it into the folder.
# options: what imgfsck needs on its command line; repair: what a repair needs besides.
Fixture = namedtuple("Fixture", "format name file base build options repair")

# name -> (the damages, what a repair needs to be told): what no mode mends, and damages together.
COMBINED = {
    "fix-l2-past-size": (("l2-past-size",), ("--fix", "qcow2-l2-past-size")),
    "fix-file-tail": (("file-tail",), ("--fix", "qcow2-file-tail")),
    "fix-hdr-size-unaligned": (("hdr-size-unaligned",), ("--fix", "qcow2-hdr-size-unaligned")),
    "fix-bitmap-in-use": (("bitmap-in-use",), ("--fix", "qcow2-bitmap-in-use")),
    "autoclear-and-counts": (("hdr-autoclear-unknown", "refcount-zero-used-16"), ()),
    "corrupt-and-crosslink": (("hdr-corrupt", "l2-data-crosslink"), ()),
    "dirty-and-leaks": (("hdr-dirty", "leak-zero-16", "refcount-zero-used-16"), ()),
    "orphans-freed": (("leak-content",), ("--orphans", "free")),
    "orphans-in-snapshot": (("leak-content",), ("--orphans", "snapshot")),
    "split-too-large": (("l2-data-crosslink",), ("--max-copy", "0")),
}


class Bases:
    """Sound qcow2 images, each made once by QEMU and then copied."""
    FILE = "disk.qcow2"

    def __init__(self, root):
        self.root, self.homes, self.lock = pathlib.Path(root), {}, threading.Lock()

    def prepare(self, recipes):
        """Makes several at a time: QEMU's tools mostly wait."""
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(self.home, dict.fromkeys(recipes)))

    def home(self, recipe):
        if recipe not in self.homes:
            home = pathlib.Path(tempfile.mkdtemp(prefix="base", dir=self.root))
            make(home / self.FILE, recipe)
            if recipe.content.startswith("data-file"):
                self.name_data_file(home / self.FILE)
            with self.lock:
                self.homes[recipe] = home
        return self.homes[recipe]

    def name_data_file(self, path):
        """QEMU was told where the data file is; the image shall not depend on that."""
        with contextlib.closing(Patient(path)) as image:
            image.change_extension(EXT_DATA_FILE, f"{self.FILE}.data".encode())

    def copy(self, recipe, folder):
        for file in self.home(recipe).iterdir():
            copy(file, pathlib.Path(folder) / file.name)


def qcow2_fixtures(bases):
    for name, recipe in patient.RECIPES.items():
        def build(folder, name=name, recipe=recipe):
            bases.copy(recipe.base, folder)
            patient.apply(name, folder / Bases.FILE)
        yield Fixture("qcow2", name, Bases.FILE, recipe.base, build, recipe.options, ())
    for name, (damages, repair) in COMBINED.items():
        def build(folder, damages=damages):
            bases.copy(patient.RECIPES[damages[0]].base, folder)
            sound = folder / "sound"
            copy(folder / Bases.FILE, sound)
            for damage in damages:
                patient.apply(damage, folder / Bases.FILE, sound=sound)
            sound.unlink()
        yield Fixture("qcow2", name, Bases.FILE, patient.RECIPES[damages[0]].base, build, (), repair)


def incident_fixtures(bases):
    for name, told in INCIDENTS.items():
        def build(folder, name=name, told=told):
            bases.copy(told.base, folder)
            strike(name, folder / Bases.FILE)
        yield Fixture("incidents", name, Bases.FILE, told.base, build, told.options, ())


def write_map(path, size, bad):
    """What ddrescue says of a copy of which the sector at `bad` could not be read."""
    path.write_text(f"# Mapfile. Created by GNU ddrescue version 1.27\n0x00 ? 1\n"
                    f"0x00 0x{bad:X} +\n0x{bad:X} 0x200 -\n"
                    f"0x{bad + 512:X} 0x{size - bad - 512:X} +\n")


UNREADABLE = {
    "unreadable-mapping": lambda image: image.used_l1()[1][1],
    "unreadable-counts": lambda image: image.refcount_table()[0],
    "unreadable-data": lambda image: image.host(image.slot()),
}


def unreadable_fixtures(bases):
    for name, where in UNREADABLE.items():
        def build(folder, where=where):
            bases.copy(Recipe(), folder)
            with contextlib.closing(Patient(folder / Bases.FILE)) as image:
                write_map(folder / "bad.map", image.file_size, where(image))
        yield Fixture("qcow2", name, Bases.FILE, Recipe(), build, ("--bad-map", "bad.map"), ())


def others():
    for name, (options, build) in fixtures_vhd.FIXTURES.items():
        yield Fixture("vhd", name, fixtures_vhd.FILE, None, build, options, ())
    for kind, made in (("qcow", fixtures_qcow1), ("cow", fixtures_cow)):
        for name, (options, _, _) in made.FIXTURES.items():
            def build(folder, made=made, name=name):
                made.build(folder, name)
            yield Fixture(kind, name, made.FILE, None, build, options, ())


def all_fixtures(bases):
    """"format/name" -> Fixture."""
    fixtures = {}
    for fixture in [*qcow2_fixtures(bases), *incident_fixtures(bases),
                    *unreadable_fixtures(bases), *others()]:
        key = f"{fixture.format}/{fixture.name}"
        assert key not in fixtures, key
        fixtures[key] = fixture
    return fixtures


@contextlib.contextmanager
def built(fixture, root):
    """A folder with the damaged image in it."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="fixture", dir=root))
    try:
        fixture.build(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
