#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every source file names the licence in its first lines and says what it is for; none is longer
than 800 lines (tables exempt)."""
import os
import pathlib
import sys

SOURCE = {".h", ".cc", ".def", ".py", ".sh", ".sql", ".cmake"}
NAMED = {"CMakeLists.txt", "run", ".clang-tidy"}
SKIPPED = {".git", "build", "__pycache__"}
LINE_LIMIT = 800


def sources(root):
    for folder, folders, files in os.walk(root):
        folders[:] = [f for f in folders if f not in SKIPPED and not f.startswith("build")]
        for name in files:
            path = pathlib.Path(folder, name)
            if path.suffix in SOURCE or name in NAMED:
                yield path


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    found, count = [], 0
    for path in sorted(sources(root)):
        count += 1
        lines = path.read_text().splitlines()
        name = path.relative_to(root)
        if not any("SPDX-License-Identifier: Apache-2.0" in line for line in lines[:3]):
            found.append(f"{name}: no SPDX line")
        if path.suffix in {".h", ".cc", ".py"} and len(lines) > LINE_LIMIT:
            found.append(f"{name}: {len(lines)} lines")
    print("\n".join(found))
    print(f"{count} files, {len(found)} wrong")
    return 1 if found or not count else 0


if __name__ == "__main__":
    sys.exit(main())
