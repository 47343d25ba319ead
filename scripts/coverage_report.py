#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What gcov counted in build/coverage: a table of the folders into docs/reliability.md, between its
two marks, and the lines of formats/, chain/, analyzers/ and repair/ that nothing ran into
build/coverage/never_run.txt.

    coverage_report.py [BUILD]"""
import collections
import gzip
import json
import os
import pathlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- scripts/coverage_report.py writes this -->\n", "<!-- coverage ends here -->\n"
FOLDERS = ("base", "io", "model", "formats", "chain", "analyzers", "repair", "extract", "report",
           "triage", "tools")
LISTED = ("formats", "chain", "analyzers", "repair")


def counted(notes):
    """[(file, line, count)] of one object; of one that was never run all counts are 0."""
    data = notes.with_suffix(".gcda")
    told = subprocess.run(["gcov", "--json-format", "--stdout", data if data.exists() else notes],
                          capture_output=True, check=True).stdout
    if told[:2] == b"\x1f\x8b":
        told = gzip.decompress(told)
    lines = []
    for document in told.splitlines():
        for file in json.loads(document)["files"]:
            path = pathlib.Path(os.path.normpath(file["file"]))
            if path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in FOLDERS:
                name = str(path.relative_to(ROOT))
                lines += [(name, line["line_number"], line["count"]) for line in file["lines"]]
    return lines


def counts(build):
    """{file: {line: count}}; a line of a template or of a header is counted wherever it is."""
    total = collections.defaultdict(collections.Counter)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for lines in pool.map(counted, sorted(build.rglob("*.gcno"))):
            for name, line, count in lines:
                total[name][line] += count
    return total


def table(total):
    lines, run = collections.Counter(), collections.Counter()
    for name, found in total.items():
        parts = name.split("/")
        folder = "/".join(parts[:2]) if parts[0] in LISTED and len(parts) > 2 else parts[0]
        lines[folder] += len(found)
        run[folder] += sum(1 for count in found.values() if count > 0)
    order = sorted(lines, key=lambda folder: (FOLDERS.index(folder.split("/")[0]), folder))
    rows = ["| folder | lines | run | % |\n", "| --- | --: | --: | --: |\n"]
    for folder in order + ["all"]:
        many = lines[folder] if folder != "all" else sum(lines.values())
        done = run[folder] if folder != "all" else sum(run.values())
        rows.append(f"| {folder} | {many:,} | {done:,} | {100 * done / many:.1f} |\n")
    return "".join(rows)


def never_run(total):
    """Lines that nothing ran, as FILE:LINE: TEXT."""
    told = []
    for name in sorted(total):
        if name.split("/")[0] not in LISTED:
            continue
        text = (ROOT / name).read_text().splitlines()
        told += [f"{name}:{line}: {text[line - 1].strip()}\n"
                 for line in sorted(total[name]) if total[name][line] == 0 and line <= len(text)]
    return told


def main(build):
    total = counts(build)
    page = PAGE.read_text()
    start, end = page.index(BEGIN) + len(BEGIN), page.index(END)
    PAGE.write_text(page[:start] + table(total) + page[end:])
    missing = never_run(total)
    (build / "never_run.txt").write_text("".join(missing))
    return len(missing)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit(__doc__)
    where = pathlib.Path(sys.argv[1]) if len(sys.argv) == 2 else ROOT / "build" / "coverage"
    print(f"{main(where)} lines that nothing ran: {where / 'never_run.txt'}")
