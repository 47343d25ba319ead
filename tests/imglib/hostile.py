# SPDX-License-Identifier: Apache-2.0
"""Images as an attacker would hand them in, each with a harmless twin that looks much the same. An
image is made by QEMU's tools and then changed by hand; none is ever opened by QEMU afterwards."""
import functools
import os
import random
import struct
from collections import namedtuple

from imglib.programs import ToolFailed, qemu_img, qemu_io, run, secret_options, temp_dir

# attack(path), twin(path): make the image. code: the reason that must be found, with `bytes` among
# the bytes shown and `says` in what is said of it. answers: what it stands for.
Case = namedtuple("Case", "name code attack twin shows answers says")
CASES = []
SIZE = 16 << 20
MBR = (bytes(446) + struct.pack("<B3sB3sII", 0x80, b"", 0x83, b"", 2048, 16384) + bytes(48) +
       b"\x55\xaa")


def patch(path, offset, data):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def u32(value):
    return struct.pack(">I", value)


def u64(value):
    return struct.pack(">Q", value)


def field(path, offset, length):
    with open(path, "rb") as file:
        file.seek(offset)
        return int.from_bytes(file.read(length), "big")


def qcow2(path, *options, size=SIZE, data=True):
    qemu_img("create", "-q", "-f", "qcow2", *(["-o", ",".join(options)] if options else []), path,
             size)
    if data:
        # Some variety, and the start of the disk free.
        qemu_io(path, ["write -P 0x41 1M 256k", "write -z 2M 64k", "write -P 0x42 9M 64k"],
                extra=["-t", "unsafe", "-f", "qcow2", path])


@functools.cache
def plain_bytes():
    with temp_dir() as folder:
        qcow2(folder / "plain")
        return (folder / "plain").read_bytes()


def plain(path):
    path.write_bytes(plain_bytes())


def overlay(name, name_format="raw"):
    """A qcow2 whose header names a backing file, which need not exist."""
    def make(path):
        qemu_img("create", "-q", "-f", "qcow2", "-u", "-b", name, "-F", name_format, path, SIZE)
    return make


def with_name(name):
    """The same for names that qemu-img would not write: an overlay whose name is replaced."""
    raw = name.encode() if isinstance(name, str) else name

    def make(path):
        overlay("x" * len(raw))(path)
        patch(path, field(path, 8, 8), raw)
    return make


def extension(path, kind, data):
    """Puts a header extension first; the others move back."""
    start = field(path, 100, 4)
    record = u32(kind) + u32(len(data)) + data + bytes(-len(data) % 8)
    with open(path, "rb") as file:
        file.seek(start)
        rest = file.read(1024)
    patch(path, start, record + rest)


def data_file(used):
    def make(path):
        plain(path)
        extension(path, 0x44415441, b"/etc/passwd")
        if used:
            patch(path, 72, u64(field(path, 72, 8) | 4))
    return make


def changed(base, *changes):
    """`base`, then bytes written: (offset, bytes) or a function of the path."""
    def make(path):
        base(path)
        for change in changes:
            if callable(change):
                change(path)
            else:
                patch(path, *change)
    return make


def raw_disk(path):
    """A disk with a partition table and a file system."""
    run("truncate", "-s", SIZE, path, check=True)
    patch(path, 0, MBR)


def vhd(path, subformat="dynamic"):
    qemu_img("create", "-q", "-f", "vpc", "-o", f"subformat={subformat},force_size=on", path, SIZE)


def fixed_vhd(path):
    vhd(path, "fixed")
    patch(path, 0, MBR)


def checksum(data, at):
    data[at:at + 4] = bytes(4)
    data[at:at + 4] = u32(~sum(data) & 0xFFFFFFFF)


def sealed_header(path):
    """Makes the checksum of a dynamic VHD's header right."""
    with open(path, "rb") as file:
        file.seek(512)
        header = bytearray(file.read(1024))
    checksum(header, 36)
    patch(path, 512, header)


def differencing(locator, payload):
    """A differencing VHD whose parent locator says `payload`."""
    def make(path):
        vhd(path)
        with open(path, "r+b") as file:
            data = bytearray(file.read())
            for at in (0, len(data) - 512):
                footer = bytearray(data[at:at + 512])
                footer[60:64] = u32(4)
                checksum(footer, 64)
                data[at:at + 512] = footer
            text = len(data) - 512
            data[text:text] = payload + bytes(-len(payload) % 512)
            header = bytearray(data[512:1536])
            header[40:56] = bytes(range(1, 17))
            name = "base.vhd".encode("utf-16-be")
            header[64:64 + len(name)] = name
            header[576:600] = locator + u32(512) + u32(len(payload)) + u32(0) + u64(text)
            checksum(header, 36)
            data[512:1536] = header
            file.seek(0)
            file.write(data)
    return make


def with_snapshot(vm_state):
    def make(path):
        plain(path)
        qemu_img("snapshot", "-c", "one", path)
        if vm_state:
            entry = field(path, 64, 8)
            patch(path, entry + 32, u32(4096))
            patch(path, entry + 40, u64(4096))
    return make


def first_l2_entry(path):
    """(offset of an L2 entry in use, its value)."""
    table = field(path, field(path, 40, 8), 8) & 0x00FFFFFFFFFFFE00
    with open(path, "rb") as file:
        file.seek(table)
        entries = struct.unpack(">8192Q", file.read(65536))
    index = next(i for i, entry in enumerate(entries) if entry > 1)
    return table + 8 * index, entries[index]


def map_onto(target):
    """Lets the guest write to the cluster that `target(path)` says."""
    def change(path):
        entry, value = first_l2_entry(path)
        patch(path, entry, u64((value & ~0x00FFFFFFFFFFFE00) | target(path)))
    return change


def map_block_onto_locator(path):
    """The guest's first block covers the parent's name."""
    locator = field(path, 512 + 576 + 16, 8)
    patch(path, field(path, 512 + 16, 8), u32(locator // 512 - 1))


def qcow1(path, size=SIZE):
    qemu_img("create", "-q", "-f", "qcow", path, size)


def append_footer(path):
    """A fixed VHD's footer behind whatever the file is: it is an image of both formats then."""
    size = path.stat().st_size
    footer = bytearray(512)
    footer[0:8] = b"conectix"
    footer[8:16] = u32(2) + u32(0x10000)
    footer[16:24] = u64(2 ** 64 - 1)
    footer[28:40] = b"qem2" + u32(0x50003) + b"Wi2k"
    footer[40:56] = u64(size) * 2
    footer[60:64] = u32(2)
    footer[68:84] = bytes(range(16))
    checksum(footer, 64)
    with open(path, "ab") as file:
        file.write(footer)


def guest_header(offset):
    """A disk in which the guest wrote an image's header, at `offset`."""
    def make(path):
        qcow2(path, data=False)
        header = path.with_suffix(".header")
        header.write_bytes(b"QFI\xfb" + u32(3) + u64(0x1000) + bytes(496))
        qemu_io(path, [f"write -s {header} {offset} 512"])
        header.unlink()
    return make


@functools.cache
def luks_bytes():
    with temp_dir() as folder:
        for attempt in range(30):
            try:
                qemu_img("create", "-q", "-f", "qcow2", *secret_options(), "-o", "encrypt.format="
                         "luks,encrypt.key-secret=key,encrypt.iter-time=10", folder / "luks", SIZE)
                break
            except ToolFailed as failure:
                # On a busy machine QEMU sometimes cannot time its key derivation.
                if attempt == 29 or "accurate CPU usage" not in str(failure):
                    raise
        return (folder / "luks").read_bytes()


def luks(iterations=None):
    def make(path):
        path.write_bytes(luks_bytes())
        if iterations:
            at = 65536 * 4
            with open(path, "rb") as file:
                at = file.read().find(b"LUKS\xba\xbe")
            patch(path, at + 208 + 4, u32(iterations))
    return make


def case(name, code, attack, twin=plain, shows=b"", answers="", says=""):
    CASES.append(Case(name, code, attack, twin, shows, answers, says))


case("backing", "ref-backing", overlay("base.img"), shows=b"base.img", answers="CVE-2015-5163 CVE-2014-0134 CVE-2015-1851")
case("backing-v1", "ref-backing",
     lambda path: qemu_img("create", "-q", "-f", "qcow", "-u", "-b", "base.img", "-F", "raw",
                           path, SIZE),
     shows=b"base.img", answers="CVE-2008-2004")
case("backing-cow", "ref-backing", lambda path: run(
    "sh", "-c", 'truncate -s 16M "$1.base" && uml_mkcow "$1" "$1.base" && rm "$1.base"', "sh", path,
    check=True), answers="CVE-2011-3147")
case("backing-absolute", "ref-absolute", overlay("/etc/shadow"), overlay("base.img"),
     b"/etc/shadow", "CVE-2015-1850")
case("backing-climbs", "ref-absolute", overlay("../../../etc/shadow"), overlay("..base.img"),
     b"../../../etc/shadow")
case("backing-device", "ref-device", with_name("/dev/sda"), with_name("devices/sda"), b"/dev/sda")
case("backing-device-hidden", "ref-device", with_name("/tmp/..//./dev/sda"), with_name("dev/sda"))
case("backing-json", "ref-pseudo", with_name('json:{"driver":"nbd","host":"10.0.0.1"}'),
     with_name("json/driver"), b'json:{', "CVE-2024-4467")
case("backing-nbd", "ref-pseudo", with_name("nbd://10.0.0.1/x"), with_name("nbd/10.0.0.1:x"))
case("backing-share", "ref-network", with_name("\\\\10.0.0.1\\c$\\x"), with_name("c$"))
case("backing-hidden", "ref-absolute", with_name(b"a\0/etc/shadow"), with_name(b"a"))
case("data-file", "ref-data-file", data_file(True), shows=b"/etc/passwd", answers="CVE-2024-32498")
case("data-file-unused", "ref-data-file-unused", data_file(False), shows=b"/etc/passwd")
case("vhd-locator", "ref-locator",
     differencing(b"W2ku", "C:\\base.vhd".encode("utf-16-le")), vhd, "C:".encode("utf-16-le"))
case("vhd-share", "ref-network",
     differencing(b"W2ku", "\\\\10.0.0.1\\c$\\b.vhd".encode("utf-16-le")),
     differencing(b"W2ru", ".\\b.vhd".encode("utf-16-le")))
case("vhd-url", "ref-absolute", differencing(b"MacX", b"file:///etc/shadow"),
     differencing(b"W2ru", ".\\b.vhd".encode("utf-16-le")))
case("vhd-parent", "ref-parent", differencing(b"W2ru", ".\\b.vhd".encode("utf-16-le")), vhd)
case("qcow2-and-vhd", "polyglot", changed(plain, append_footer),
     changed(plain, lambda path: os.truncate(path, path.stat().st_size + 512)))
case("qcow2-and-mbr", "polyglot", changed(plain, (446, MBR[446:])))
case("qcow2-and-iso", "polyglot", changed(plain, (0x8000, b"\1CD001\1")))
case("raw-with-header", "probe-confusion", changed(raw_disk, (
    0, b"QFI\xfb" + u32(3) + u64(0) + u32(0) + u32(16) + u64(SIZE) + u32(0) + u32(1) +
    u64(0x40000000) + u64(0x50000000) + u32(1) + bytes(8) + bytes(24) + u32(4) + u32(104))),
     raw_disk, answers="CVE-2013-1922")
case("raw-with-vdi", "polyglot", changed(raw_disk, (64, b"\x7f\x10\xda\xbe")), raw_disk)
case("guest-header", "probe-confusion", guest_header(0), guest_header(512 * 128),
     answers="CVE-2026-24708 CVE-2026-27211")
case("fixed-vhd-with-header", "polyglot", changed(fixed_vhd, (
    0, b"QFI\xfb" + u32(3) + bytes(8) + u32(0) + u32(16))), fixed_vhd)
case("name-on-header", "name-overlap", changed(overlay("base.img"), (8, u64(40))),
     overlay("base.img"))
case("name-outside", "name-overlap", changed(overlay("base.img"), (8, u64(65530))),
     overlay("base.img"))
case("name-in-data", "name-overlap", changed(
    differencing(b"W2ru", ".\\b.vhd".encode("utf-16-le")), map_block_onto_locator),
     differencing(b"W2ru", ".\\b.vhd".encode("utf-16-le")))
case("size-huge", "dos-size", lambda path: qcow2(path, size=1 << 50, data=False),
     lambda path: qcow2(path, size=8 << 40, data=False),
     answers="CVE-2015-5162 CVE-2013-2096")
case("size-huge-v1", "dos-size", changed(lambda path: qcow1(path), (24, u64(152 << 40))),
     answers="CVE-2015-5162 CVE-2014-0223")
case("l1-huge", "dos-table", changed(plain, (36, u32(0x7FFFFFFF))), answers="CVE-2014-0143")
case("refcount-table-huge", "dos-table", changed(plain, (56, u32(0x7FFFFFFF))),
     answers="CVE-2014-0143")
case("snapshots-huge", "dos-table", changed(plain, (60, u32(0x7FFFFFFF)), (64, u64(65536))),
     answers="CVE-2014-0145")
case("extension-huge", "dos-table", changed(plain, lambda path: patch(
    path, field(path, 100, 4) + 4, u32(0x7FFFFFFF))))
case("snapshot-extra-huge", "dos-table", changed(with_snapshot(False), lambda path: patch(
    path, field(path, 64, 8) + 36, u32(0x7FFFFFFF))), with_snapshot(False))
case("luks-slow", "dos-table", luks(0xFFFFFFFF), luks())
case("vhd-table-huge", "dos-table", changed(vhd, lambda path: patch(
    path, 512 + 28, u32(0x7FFFFFFF))), vhd)
case("cluster-bits", "mem-safety", changed(plain, (20, u32(63))), answers="CVE-2014-0144")
case("refcount-order", "mem-safety", changed(plain, (96, u32(31))), answers="CVE-2014-0147")
case("l1-unaligned", "mem-safety", changed(plain, (40, u64(0x30001))), answers="CVE-2014-0146")
case("l2-bits-v1", "mem-safety", changed(lambda path: qcow1(path), (33, b"\x3f")),
     answers="CVE-2014-0222")
case("vhd-block-size", "mem-safety", changed(vhd, (512 + 32, u32(3))), vhd)
case("feature-unknown", "feature-unknown", changed(plain, (72, u64(1 << 40))),
     lambda path: qcow2(path, "extended_l2=on", data=False), answers="CVE-2024-44082")
case("version-unknown", "feature-unknown", changed(plain, (4, u32(9))),
     lambda path: qcow2(path, "compat=0.10"))
case("data-on-l1", "meta-overlap", changed(plain, map_onto(lambda path: field(path, 40, 8))))
case("data-on-counts", "meta-overlap", changed(plain, map_onto(
    lambda path: field(path, 48, 8))))
case("vm-state", "snapshot-vm-state", with_snapshot(True), with_snapshot(False))
case("legacy-crypt", "legacy-crypt", changed(plain, (32, u32(1))))
case("encrypted", "encrypted", luks())
case("dirty", "time-bomb", changed(plain, (72, u64(1))),
     lambda path: qcow2(path, "lazy_refcounts=on"))
case("l2-past-the-end", "damaged", changed(plain, map_onto(lambda path: 1 << 40)))
case("vhd-parent-left-over", "ref-parent-unused", changed(vhd, (
    512 + 64, "base".encode("utf-16-be")), sealed_header), vhd)
case("vhd-parent-wrong-sum", "ref-parent-unused", changed(vhd, (
    512 + 64, "base".encode("utf-16-be"))), vhd)
case("qed", "format-refused",
     lambda path: qemu_img("create", "-q", "-f", "qed", path, SIZE))
case("qed-backing", "ref-backing", lambda path: qemu_img(
    "create", "-q", "-f", "qed", "-u", "-b", "/etc/shadow", "-F", "raw", path, SIZE),
     shows=b"/etc/shadow")
case("parallels-tracks", "format-unchecked", changed(
    lambda path: qemu_img("create", "-q", "-f", "parallels", path, SIZE), (28, u32(0))),
     answers="CVE-2014-0142")
case("vhdx", "format-unchecked", lambda path: qemu_img("create", "-q", "-f", "vhdx", path, SIZE),
     answers="CVE-2014-0148")
case("vdi", "format-unchecked", lambda path: qemu_img("create", "-q", "-f", "vdi", path, SIZE))
case("noise", "named-image", lambda path: path.write_bytes(random.Random(8).randbytes(1 << 20)),
     raw_disk)

from imglib import hostile_vmdk  # noqa: E402,F401  adds its cases
