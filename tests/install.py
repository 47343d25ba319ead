#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`cmake --install` puts the tools into bin/, where they run by themselves; every preset that the
documentation names can be configured, and warnings are errors in each."""
import json
import pathlib

from imglib.programs import BIN, imgfsck, run
from imglib.testing import ImageTest, main

SOURCE = pathlib.Path(__file__).resolve().parent.parent
TOOLS = {"imgfsck", "imgdump", "imgio", "imgtriage"}


class Install(ImageTest):
    def test_tools_arrive_in_bin(self):
        prefix = self.folder / "usr"
        run("cmake", "--install", BIN.parent, "--prefix", prefix, check=True)
        self.assertEqual({path.name for path in (prefix / "bin").iterdir()}, TOOLS)
        for tool in TOOLS:
            done = run(prefix / "bin" / tool, "--version", check=True)
            self.assertEqual(done.out.split()[0], tool)
        self.assertEqual(imgfsck("--version").out,
                         run(prefix / "bin" / "imgfsck", "--version").out)

    def test_a_build_without_names(self):
        """The library is neither looked for nor compiled against."""
        run("cmake", "-B", self.folder, "-S", SOURCE, "-DIMGFSCK_TESTS=OFF", "-DIMGFSCK_TSK=OFF",
            check=True)
        for build, names in ((self.folder, False), (BIN.parent, True)):
            commands = (build / "compile_commands.json").read_text()
            self.assertEqual("IMGFSCK_HAVE_TSK" in commands, names)

    def test_presets_configure(self):
        presets = json.loads((SOURCE / "CMakePresets.json").read_text())
        names = {p["name"] for p in presets["configurePresets"] if not p.get("hidden")}
        self.assertEqual(names, {"release", "debug", "asan", "fuzz", "coverage"})
        self.assertEqual({p["name"] for p in presets["buildPresets"]}, names)
        for name in names:
            build = self.folder / name
            run("cmake", "--preset", name, "-B", build, "-S", SOURCE, "-DIMGFSCK_TESTS=OFF",
                check=True, cwd=SOURCE)
            commands = json.loads((build / "compile_commands.json").read_text())
            for entry in commands:
                self.assertIn("-Werror", entry["command"], entry["file"])


if __name__ == "__main__":
    main()
