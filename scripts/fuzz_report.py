#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Puts what scripts/fuzz.sh measured (build/fuzz/table.txt) into docs/reliability.md, between the two
marks there.

    fuzz_report.py [TABLE]"""
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- scripts/fuzz_report.py writes this -->\n", "<!-- to here -->\n"


def rows(table):
    """The last run of each target, in the table's order."""
    last = {}
    for line in table.read_text().splitlines():
        words = line.split()
        if len(words) == 6:
            last[words[0]] = words[1:]
    return last


def main(table):
    lines = ["| target | seconds | executions | edges covered | peak MiB | finds |\n",
             "| --- | --: | --: | --: | --: | --: |\n"]
    for target, (seconds, executions, edges, memory, finds) in rows(table).items():
        lines.append(f"| {target} | {seconds} | {int(executions):,} | {int(edges):,} | {memory} | "
                     f"{finds} |\n")
    page = PAGE.read_text()
    start, end = page.index(BEGIN) + len(BEGIN), page.index(END)
    PAGE.write_text(page[:start] + "".join(lines) + page[end:])
    return len(lines) - 2


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit(__doc__)
    path = pathlib.Path(sys.argv[1]) if len(sys.argv) == 2 else ROOT / "build/fuzz/table.txt"
    print(f"{main(path)} targets")
