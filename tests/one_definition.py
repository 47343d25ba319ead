#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Reads every class, struct and enum that the whole program can see, and fails where two files give one
name in one namespace to two of them: no compiler and no linker says so, and each file may get the
other's constructors. Then the same reading is tried on what must be found and what must not."""
import collections
import pathlib
import re
import sys

from layering import ALLOWED

TOKEN = re.compile(
    r'//[^\n]*|"(?:\\.|[^"\\\n])*"|' r"'(?:\\.|[^'\\\n])'|"
    r'\bnamespace\b\s*(?P<space>[\w:]*)\s*\{|'
    r'\b(?:struct|class|enum class|enum)\s+(?:\[\[\w+\]\]\s*)?(?P<name>\w+)'
    r'(?:\s+final)?\s*(?::[^:;{()][^;{()]*)?\{|[{}]')


def definitions(text):
    """Full names of what is defined outside functions, classes and anonymous namespaces."""
    found, scopes = [], []
    for match in TOKEN.finditer(text):
        if match["space"] is not None:
            scopes.append(match["space"])  # empty: anonymous
        elif match["name"]:
            if all(scopes):
                found.append("::".join([*scopes, match["name"]]))
            scopes.append("")
        elif match.group() == "{":
            scopes.append("")
        elif match.group() == "}" and scopes:
            scopes.pop()
    return found


def self_check():
    assert definitions("namespace a::b {\nstruct C : D {\n int x;\n};\nenum class E : int { kF };\n}") \
        == ["a::b::C", "a::b::E"]
    assert definitions("namespace a { namespace {\nclass C {};\n} class D final { struct E {}; }; }") \
        == ["a::D"]
    assert definitions('namespace a { void F() { struct C {}; } struct G; struct H::I {}; // {\n'
                       'const char* k = "{"; struct J {}; }') == ["a::J"]


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    self_check()
    where = collections.defaultdict(list)
    for folder in ALLOWED:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in {".h", ".cc"} and "bench" not in path.parts:
                for name in definitions(path.read_text()):
                    where[name].append(path.relative_to(root).as_posix())
    twice = {name: files for name, files in where.items() if len(files) > 1}
    for name, files in sorted(twice.items()):
        print(f"{name}: {', '.join(files)}")
    print(f"{len(where)} names, {len(twice)} given twice")
    return 1 if twice or not where else 0


if __name__ == "__main__":
    sys.exit(main())
