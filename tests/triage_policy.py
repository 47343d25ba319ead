#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The verdict on untrusted images: every attack is caught, with the bytes that it lies in; every
harmless twin passes; and nothing that an image names is touched on the way."""
import json
import pathlib
import re

from imglib import hostile, hostile_vmdk
from imglib.programs import BIN, run
from imglib.testing import ImageTest, main

HERE = pathlib.Path(__file__).resolve().parent
POLICIES = ("openstack", "kubevirt", "strict")
# Reasons for which a policy may still call the twin anything but safe.
TWINS_THAT_NAME_FILES = {"ref-backing", "ref-parent", "ref-locator", "encrypted", "format-refused"}


def judge(folder, policy):
    """name -> document of every image in the folder."""
    done = run(BIN / "imgtriage", "--policy", policy, "--json", "-", folder)
    lines = map(json.loads, done.out.splitlines())
    return {line["filename"].rsplit("/", 1)[-1]: line for line in lines}


def codes(document):
    return {reason["code"] for reason in document["reasons"]}


class Policy(ImageTest):
    def test_attacks_are_caught_and_twins_pass(self):
        attacks, twins = self.folder / "attacks", self.folder / "twins"
        attacks.mkdir()
        twins.mkdir()
        for case in hostile.CASES:
            case.attack(attacks / f"{case.name}.img")
            case.twin(twins / f"{case.name}.img")
        caught = {policy: judge(attacks, policy) for policy in POLICIES}
        passed = {policy: judge(twins, policy) for policy in POLICIES}
        for case in hostile.CASES:
            name = f"{case.name}.img"
            with self.subTest(case=case.name):
                for policy in POLICIES:
                    self.check_attack(case, caught[policy][name], policy)
                    self.check_twin(case, passed[policy][name], policy)

    def test_every_reason_has_an_attack(self):
        listed = {line.split(":")[0] for line in
                  run(BIN / "imgtriage", "--list-reasons", check=True).out.splitlines()}
        elsewhere = {"chain-cycle", "unreadable", "changed", "worker-crashed",
                     "worker-memory", "worker-time", "worker-failed"}
        self.assertEqual(listed - elsewhere, {case.code for case in hostile.CASES})

    def test_every_attack_that_is_listed_has_a_fixture(self):
        listed = re.findall(r"CVE-\d+-\d+", (HERE.parent / "triage" / "reasons.def").read_text())
        tried = re.findall(r"CVE-\d+-\d+", " ".join(case.answers for case in hostile.CASES))
        self.assertEqual(set(listed), set(tried))

    def check_attack(self, case, document, policy):
        found = [r for r in document["reasons"] if r["code"] == case.code]
        self.assertTrue(found, f"{policy}: {codes(document)}")
        shown = b"".join(bytes.fromhex(reason.get("bytes", "")) for reason in found)
        self.assertIn(case.shows, shown)
        self.assertIn(case.says, " ".join(reason.get("detail", "") for reason in found))
        weights = {reason["weight"] for reason in document["reasons"]}
        expected = ("unsafe" if "unsafe" in weights else
                    "undecidable" if "undecidable" in weights else "safe")
        self.assertEqual(document["verdict"], expected)
        if policy == "strict" and case.code != "format-refused":
            self.assertNotEqual(document["verdict"], "safe")

    def check_twin(self, case, document, policy):
        self.assertNotIn(case.code, codes(document), policy)
        left = {r["code"] for r in document["reasons"] if r["weight"] == "unsafe"}
        self.assertLessEqual(left, TWINS_THAT_NAME_FILES, policy)

    def test_sound_images_are_safe_under_every_policy(self):
        for number, options in enumerate((
                (), ("cluster_size=512",), ("cluster_size=2M",), ("extended_l2=on",),
                ("compat=0.10",), ("compression_type=zstd",), ("refcount_bits=64",),
                ("lazy_refcounts=on",), ("preallocation=metadata",))):
            hostile.qcow2(self.folder / f"{number}.img", *options)
        hostile.vhd(self.folder / "dynamic.vhd")
        hostile.fixed_vhd(self.folder / "fixed.vhd")
        hostile.raw_disk(self.folder / "disk")
        for policy in POLICIES:
            for name, document in judge(self.folder, policy).items():
                self.assertEqual(document["verdict"], "safe", f"{policy} {name} {document}")

    def test_a_disk_with_a_file_system_is_safe_at_every_cluster_size(self):
        raw = self.folder / "disk.raw"
        run("truncate", "-s", "4M", raw, check=True)
        run("mkfs.ext4", "-q", raw, check=True)
        for bits in range(9, 22):
            hostile.qemu_img("convert", "-O", "qcow2", "-o", f"cluster_size={1 << bits}", raw,
                             self.folder / f"{bits}.qcow2")
        hostile.qemu_img("convert", "-O", "vpc", raw, self.folder / "disk.vhd")
        for name, document in judge(self.folder, "strict").items():
            self.assertEqual(document["verdict"], "safe", f"{name} {document['reasons']}")

    def test_nothing_that_an_image_names_is_touched(self):
        victim = self.folder / "victim"
        victim.write_text("secret")
        store = self.folder / "store"
        store.mkdir()
        hostile.overlay(str(victim))(store / "overlay")
        hostile.data_file(True)(store / "data")
        text = "file://" + str(victim)
        hostile.differencing(b"MacX", text.encode())(store / "differencing")
        hostile.changed(hostile_vmdk.vmdk(), lambda path: hostile_vmdk.descriptor(
            path, b'SPARSE "' + path.name.encode(), b'FLAT "' + str(victim).encode()))(
                store / "extent")
        run("sh", "-c", f'truncate -s 1M "$1.base" && uml_mkcow "$1" "$1.base" && rm "$1.base"',
            "sh", store / "cow", check=True)
        trace = self.folder / "trace"
        done = run("strace", "-f", "-qq", "-e", "trace=%file,%network", "-o", trace,
                   BIN / "imgtriage", "--policy", "strict", store,
                   env={"ASAN_OPTIONS": "detect_leaks=0"})
        self.assertEqual(done.code, 4, done.err)
        calls = trace.read_text()
        self.assertIn("store/overlay", calls)
        for name in ("victim", "passwd", "cow.base", "socket"):
            self.assertNotIn(name, calls)


if __name__ == "__main__":
    main()
