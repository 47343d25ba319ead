# SPDX-License-Identifier: Apache-2.0
"""Runs our tools and QEMU's, bounded in time, and looks at files from outside."""
import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
from collections import namedtuple

BIN = pathlib.Path(os.environ.get("IMGFSCK_BIN", "build/release/bin")).resolve()
LONG = os.environ.get("IMGFSCK_LONG") == "1"
SANITIZED = os.environ.get("IMGFSCK_SANITIZED") == "1"
SECRET = "imgfsck-test"

Run = namedtuple("Run", "code out err command")
FileState = namedtuple("FileState", "digest size mtime_ns blocks")


class ToolFailed(Exception):
    pass


def run(*command, timeout=120, stdin=None, cwd=None, check=False, env=None):
    """Runs a program; text out. A negative code is a signal; a hang is an error of the test."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, timeout=timeout, cwd=cwd, check=False,
                          input=stdin, env={**os.environ, **(env or {})})
    result = Run(done.returncode, done.stdout.decode("utf-8", "replace"),
                 done.stderr.decode("utf-8", "replace"), " ".join(words))
    if check and result.code != 0:
        raise ToolFailed(f"{result.command}: exit {result.code}\n{result.out}{result.err}")
    return result


def imgfsck(*options, **more):
    return run(BIN / "imgfsck", *options, **more)


def imgdump(*options, **more):
    return run(BIN / "imgdump", *options, **more)


def qemu_img(*options, **more):
    return run("qemu-img", *options, check=True, **more).out


def qemu_io(image, commands, extra=()):
    """Runs qemu-io commands on a qcow2 (or what `extra` says instead of a file name)."""
    words = []
    for command in commands:
        words += ["-c", command]
    target = extra or ["-f", "qcow2", image]
    done = run("qemu-io", *words, *target)
    lines = done.out + done.err
    if done.code != 0 or "failed" in lines or "rror" in lines:
        raise ToolFailed(f"{done.command}: exit {done.code}\n{lines}")
    return done.out


def imgio(*words, code=0, **more):
    """What `imgio` prints; its exit status must be `code`."""
    done = run(BIN / "imgio", *words, **more)
    if done.code != code:
        raise AssertionError(f"{done.command}: exit {done.code}\n{done.out[-2000:]}{done.err[-2000:]}")
    return done.out


def secret_options():
    return ["--object", f"secret,id=key,data={SECRET}"]


def luks_target(path):
    """How qemu-img and qemu-io are told of a LUKS image and its key."""
    return secret_options() + ["--image-opts", "driver=qcow2,encrypt.format=luks,"
                               f"encrypt.key-secret=key,file.filename={path}"]


def check_json(path, *options, **more):
    """(exit code, document) of `imgfsck --json`."""
    done = imgfsck("--json", *options, path, **more)
    lines = [line for line in done.out.splitlines() if line.strip()]
    if len(lines) != 1:
        raise ToolFailed(f"{done.command}: exit {done.code}, {len(lines)} lines of JSON\n"
                         f"{done.out[:2000]}{done.err}")
    return done.code, json.loads(lines[0])


def qemu_check(path, luks=False):
    """(exit code, document or None) of `qemu-img check --output=json`."""
    target = luks_target(path) if luks else ["-f", "qcow2", path]
    done = run("qemu-img", "check", "--output=json", *target)
    return done.code, json.loads(done.out) if done.out.lstrip().startswith("{") else None


def data_blocks(file, size):
    """(offset, bytes) of the file in aligned blocks, holes left out."""
    block, at = 65536, 0
    while at < size:
        try:
            start = os.lseek(file.fileno(), at, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole from here on
            return
        end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
        at = max(at, start // block * block)
        while at < end:
            yield at, os.pread(file.fileno(), block, at)
            at += block


def digest(path):
    """A hash of the file's length and bytes. Zeros and holes are the same, and holes cost nothing:
    some files here are a TiB long."""
    total = hashlib.sha256()
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        total.update(b"%d" % size)
        for at, data in data_blocks(file, size):
            if data.count(0) != len(data):
                total.update(b" %d " % at + data)
    return total.hexdigest()


def file_state(path):
    status = os.stat(path)
    return FileState(digest(path), status.st_size, status.st_mtime_ns, status.st_blocks)


def folder_state(path):
    """Name -> state of every regular file: what a tool that must write nothing is held to."""
    return {name.name: file_state(name) for name in sorted(pathlib.Path(path).iterdir())
            if name.is_file()}


def guest_copy(path, raw, luks=False, snapshot=None):
    """Writes what a guest reads to the file `raw`, by qemu-img. False: QEMU cannot."""
    source = luks_target(path) if luks else ["-f", "qcow2", path]
    view = ["-l", f"snapshot.name={snapshot}"] if snapshot else []
    return run("qemu-img", "convert", *view, "-O", "raw", *source, raw, timeout=300).code == 0


def guest_digest(path, luks=False, snapshot=None):
    """SHA-256 of what a guest reads, by qemu-img; None when QEMU cannot open or read the image."""
    with temp_dir() as folder:
        raw = folder / "guest.raw"
        return digest(raw) if guest_copy(path, raw, luks, snapshot) else None


def copy(source, target):
    """A copy with its holes and its times."""
    run("cp", "--sparse=always", "--preserve=timestamps", source, target, check=True)


def memory_folder():
    """A folder in memory, where fsync costs nothing, when there is one with room; else None."""
    shared = "/dev/shm"
    if os.path.isdir(shared) and shutil.disk_usage(shared).free > 2 << 30:
        return shared
    return None


@contextlib.contextmanager
def temp_dir(on_disk=True):
    folder = tempfile.mkdtemp(prefix="imgfsck-test-", dir=None if on_disk else memory_folder())
    try:
        yield pathlib.Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
