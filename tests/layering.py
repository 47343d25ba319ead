#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Reads every #include of the tree and fails on an arrow that points up or sideways.

The folders form a tower; a file may include what lies in its own folder or below. report,
triage and tools stand on top. formats/a never includes formats/b (every format may include
formats/common, which knows none of them), and nobody includes tests.
Then the same reading is tried on arrows that must be refused, so that this test can fail."""
import pathlib
import re
import sys

# Folder -> the folders it may include besides itself.
TOWER = ["base", "io", "model", "formats", "chain", "analyzers", "repair", "extract"]
ALLOWED = {name: set(TOWER[:rank]) for rank, name in enumerate(TOWER)}
ALLOWED["report"] = {"base", "io", "model"}
ALLOWED["triage"] = set(TOWER) - {"repair", "extract"} | {"report"}
ALLOWED["tools"] = set(TOWER) | {"report", "triage"}
ALLOWED["bench"] = set(TOWER) | {"report"}
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"')


def format_folder(path):
    """'qcow2' for formats/qcow2/walk.h; None for files straight in formats/ and elsewhere."""
    parts = path.split("/")
    return parts[1] if parts[0] == "formats" and len(parts) > 2 else None


def arrow_error(source, target):
    """Why `source` must not include `target` (both relative to the root), or None."""
    source_folder, target_folder = source.split("/")[0], target.split("/")[0]
    if target_folder not in ALLOWED:
        return "includes must name files from the root: base/x.h, formats/qcow2/y.h"
    if target_folder != source_folder and target_folder not in ALLOWED[source_folder]:
        return f"{source_folder} must not know {target_folder}"
    mine, other = format_folder(source), format_folder(target)
    if mine and other and other not in (mine, "common"):
        return f"formats/{mine} must not know formats/{other}"
    return None


def errors_of(root):
    found, files = [], 0
    for folder in ALLOWED:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix not in {".h", ".cc", ".def"}:
                continue
            files += 1
            name = path.relative_to(root).as_posix()
            for number, line in enumerate(path.read_text().splitlines(), 1):
                match = INCLUDE.match(line)
                if not match:
                    continue
                target = match.group(1)
                if not (root / target).is_file():
                    found.append(f"{name}:{number}: no such file from the root: {target}")
                elif error := arrow_error(name, target):
                    found.append(f"{name}:{number}: {error} ({target})")
    return found, files


def self_check():
    refused = [("base/a.h", "io/file.h"), ("io/a.cc", "model/problem.h"),
               ("model/a.h", "report/text.h"), ("report/a.cc", "formats/registry.h"),
               ("report/a.cc", "repair/pass.h"), ("report/a.cc", "triage/facts.h"),
               ("triage/a.cc", "repair/pass.h"), ("analyzers/a.cc", "repair/pass.h"),
               ("repair/a.cc", "tools/common/x.h"), ("formats/qcow2/a.cc", "formats/vpc/b.h"),
               ("formats/common/a.cc", "formats/vpc/b.h"),
               ("formats/qcow2/a.cc", "chain/gate.h")]
    allowed = [("formats/registry.cc", "formats/qcow2/driver.h"),
               ("formats/qcow2/a.cc", "formats/common/deflate.h"), ("io/a.cc", "io/b.h"),
               ("formats/qcow2/a.cc", "formats/qcow2/b.h"), ("tools/a.cc", "report/json.h"),
               ("triage/a.cc", "chain/gate.h"),
               ("formats/qcow2/a.cc", "formats/driver.h"), ("repair/a.cc", "base/bytes.h")]
    assert all(arrow_error(*pair) for pair in refused)
    assert not any(arrow_error(*pair) for pair in allowed)


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    self_check()
    found, files = errors_of(root)
    print("\n".join(found))
    print(f"{files} files, {len(found)} wrong arrows")
    return 1 if found or not files else 0


if __name__ == "__main__":
    sys.exit(main())
