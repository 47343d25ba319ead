# SPDX-License-Identifier: Apache-2.0
"""Programs run under strace, which counts the system calls that change the disk and makes one of
them the last, or a failure."""
import collections
import re

from imglib.programs import run

WRITES = ("pwrite64", "pwritev", "pwritev2", "write", "fsync", "fdatasync", "ftruncate", "fallocate",
          "rename", "renameat", "renameat2", "unlink", "unlinkat", "link", "linkat",
          "copy_file_range", "sync_file_range", "sendfile", "msync")
# The leak checker cannot run under a tracer.
TRACED = {"ASAN_OPTIONS": "detect_leaks=0"}


def traced(log, *command, inject=None):
    """`inject`: what becomes of which call, as strace spells it."""
    return run("strace", "-f", "-qq", "-o", log, "-e", "trace=" + ",".join(WRITES),
               *(["-e", f"inject={inject}"] if inject else []), *command, env=TRACED)


def counts(log):
    """{system call: how often a traced run made it}"""
    found = collections.Counter(re.findall(r"^\d*\s*(\w+)\(", log.read_text(), re.MULTILINE))
    assert set(found) <= set(WRITES), found
    return found
