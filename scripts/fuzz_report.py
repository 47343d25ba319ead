#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Puts what scripts/fuzz.sh measured (build/fuzz/table.txt, a line a run) into docs/reliability.md,
between the two marks there: of all runs of a target the seconds by the clock, of processor time where
it was counted, and the executions; the most edges and memory.

    fuzz_report.py [TABLE]"""
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- scripts/fuzz_report.py writes this -->\n", "<!-- to here -->\n"


def rows(table):
    """{target: [seconds, processor seconds, executions, edges, memory, finds]} of all its runs, in the
    table's order."""
    runs = {}
    for line in table.read_text().splitlines():
        words = line.split()
        if len(words) in (6, 7):
            runs.setdefault(words[0], []).append([int(word) for word in (words + ["0"])[1:7]])
    sums = {}
    for target, figures in runs.items():
        seconds, executions, edges, memory, finds, processor = zip(*figures)
        sums[target] = [sum(seconds), sum(processor), sum(executions), max(edges), max(memory),
                        max(finds)]
    return sums


def main(table):
    lines = ["| target | seconds | of processor | executions | edges covered | peak MiB | finds |\n",
             "| --- | --: | --: | --: | --: | --: | --: |\n"]
    for target, (seconds, processor, executions, edges, memory, finds) in rows(table).items():
        lines.append(f"| {target} | {seconds:,} | {processor:,} | {executions:,} | {edges:,} | {memory} | "
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
