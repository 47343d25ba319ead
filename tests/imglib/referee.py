# SPDX-License-Identifier: Apache-2.0
"""One image given to QEMU's tools and to ours: where they disagree, and which disagreements are
known. What is not known is a bug, of ours until somebody shows that it is theirs."""
import json
from collections import namedtuple

from imglib.programs import BIN, check_json, imgdump, run
from imglib.testing import RANK

LARGEST = 64 << 20  # the content of larger disks is not compared
SECONDS = 120

# what: "check", "map", "content" … known: a name of KNOWN, or "".
Disagreement = namedtuple("Disagreement", "what qemu ours known")

# Codes of damage that `qemu-img check` does not look at, or counts as no error: why.
STRICTER = {
    "qcow2-l2-copied": "the flag COPIED is compared with the references there are; QEMU compares it "
                       "with the stored count, which is wrong, too",
    "qcow2-l1-copied": "the flag COPIED of a mapping table is compared with the references there are",
    "qcow2-l2-empty-with-leaks": "a mapping table of zeros beside clusters with data that nothing "
                                 "refers to: the table was overwritten",
    "qcow2-l2-data-on-metadata": "a cluster is data and a table at once, and its count is right",
    "qcow2-l1-past-eof": "the file ends before the top table, which QEMU takes for zeros",
    "qcow2-backing-offset": "a backing file's name that is nowhere; QEMU takes its place for the end "
                            "of the header's extensions, and reads none",
    "qcow2-backing-size": "a backing file's name of no length",
    "qcow2-l2-zero-flag-v2": "a cluster of zeros in an image of version 2, which has none: to read "
                             "it is an error",
    "qcow2-snap-l1-short": "a snapshot's top table that is too short for its disk",
    "qcow2-snap-l2-structure": "an entry in a snapshot's mapping table that cannot be",
}

# name: (what QEMU does, what imgfsck does). Each has an example in EXAMPLES of differential.py.
KNOWN = {
    "stricter": ("finds no error", "finds one"),  # and which: STRICTER
    "counts-past-end": ("does not look at counts of clusters behind the file's end",
                        "calls them a leak: the next clusters there are taken for used"),
    "count-too-high": ("calls a count that is too high a leak, and the flag COPIED beside it "
                       "an error", "calls it a leak alone: nothing can be lost by it"),
    "past-end": ("shows zeros for what lies past the end of the file, or a table of zeros",
                 "`imgio` reads no such image unless told to (`--salvage`: zeros, each range "
                 "listed); the check says that the place is wrong"),
    "refused": ("reads the image, as it does not look at the damaged field",
                "`imgio` refuses the image; the check says what is damaged"),
    "place-not-needed": ("refuses a cluster of zeros, or without data, whose reserved place is "
                         "impossible", "reads it: its place does not matter; the check says it"),
    "read-further": ("refuses the image", "reads what can be read; the check says what is wrong"),
    "sector-bitmaps": ("shows what lies in the sectors of a VHD that are marked as never written",
                       "shows zeros there, as the format has it; the check says that readers "
                       "differ"),
    "size-policy": ("goes by the geometry, as it does not know the creator of the VHD",
                    "goes by the size, as the geometry is larger than what is stored; the check "
                    "says that programs disagree"),
    "two-footers": ("goes by the copy of the footer at the start of a VHD", "goes by the footer at "
                    "its end; the check says that they differ"),
}


SECTION = "\n## Where QEMU and imgfsck read the same bytes differently\n"  # of docs/comparison.md


def entries(text):
    """A map with neighbours joined; entries of no length left out."""
    joined = []
    for entry in json.loads(text):
        if entry["length"] == 0:
            continue
        new = {key: entry.get(key) for key in ("start", "length", "depth", "present", "zero", "data",
                                               "offset")}
        last = joined[-1] if joined else None
        if last and all(last[key] == new[key] for key in ("depth", "present", "zero", "data")) and (
                last["offset"] is None and new["offset"] is None or
                None not in (last["offset"], new["offset"]) and
                last["offset"] + last["length"] == new["offset"]):
            last["length"] += new["length"]
        else:
            joined.append(new)
    return joined


def length_of(found):
    return found[-1]["start"] + found[-1]["length"] if found else 0


class Referee:
    """Looks at the image `path`, which lies in a folder of its own."""

    def __init__(self, path, kind):
        self.path, self.kind = path, kind
        self.found = []

    def say(self, what, qemu, ours, known=""):
        self.found.append(Disagreement(what, str(qemu)[-600:], str(ours)[-600:], known))

    def look(self):
        """The disagreements."""
        _, self.document = check_json(self.path, "--format", self.kind, "--deep", timeout=SECONDS)
        self.codes = {f["code"] for f in self.document["findings"]}
        self.severe = {f["code"] for f in self.document["findings"]
                       if f["severity"] == "corruption"}
        self.worst = max((RANK[f["severity"]] for f in self.document["findings"]), default=0)
        if self.kind == "qcow2":
            self.checks()
        if self.maps():
            self.contents()
        return self.found

    def corrupt(self):
        return self.worst == RANK["corruption"]

    # --- what a check says

    def checks(self):
        theirs = run("qemu-img", "check", "--output=json", "-f", "qcow2", self.path,
                     timeout=SECONDS)
        _, ours = check_json(self.path, "--format", "qcow2", timeout=SECONDS)
        severe = {f["code"] for f in ours["findings"] if f["severity"] == "corruption"}
        leaks = ours["leaks"] > 0
        if self.no_verdict(theirs.err):
            return
        told = f"{ours['corruptions']} corruptions, {ours['leaks']} leaks: " + \
            ", ".join(f["code"] for f in ours["findings"])
        if theirs.code in (1, 2) and not severe:
            errors = [line for line in theirs.err.splitlines() if line.startswith("ERROR")]
            flags_only = errors and all("OFLAG_COPIED" in line for line in errors)
            known = "count-too-high" if leaks and flags_only else ""
            self.say("check", f"{theirs.code}: {theirs.err}", told, known)
        elif theirs.code in (0, 3) and severe:
            self.say("check", theirs.code, told, "stricter" if severe <= set(STRICTER) else "")
        elif theirs.code == 3 and not leaks or theirs.code == 0 and leaks:
            wasted = {f["code"] for f in ours["findings"] if f["severity"] == "leak"}
            known = "counts-past-end" if wasted == {"qcow2-refcount-past-eof"} else ""
            self.say("check", f"{theirs.code}: {theirs.err}", told, known)

    def no_verdict(self, error):
        """QEMU did not look at the image: it wants a key for what says that it is encrypted, or the
        backing file, whose absence is no damage of this image."""
        return "encrypt.key-secret" in error or \
            "backing" in error and bool(self.codes & {"qcow2-backing-missing", "qcow-backing-missing"})

    # --- where things are

    def maps(self):
        """Whether both could be asked, and the disk is small enough to be read."""
        theirs = run("qemu-img", "map", "--output=json", "-f", self.kind, self.path,
                     timeout=SECONDS)
        ours = run(BIN / "imgio", "map", "--json", "-f", self.kind, self.path, timeout=SECONDS)
        if theirs.code and ours.code:
            if not self.corrupt() and not self.no_verdict(theirs.err):
                self.say("check", theirs.err, sorted(self.codes))
            return False
        if theirs.code:
            self.say("map", theirs.err, "a map", self.why_we_read(theirs.err))
            return False
        if ours.code:
            self.say("map", "a map", ours.err, self.why_we_refuse(ours.err))
            return self.small(length_of(entries(theirs.out)))
        qemu, found = entries(theirs.out), entries(ours.out)
        if length_of(qemu) != length_of(found):
            self.say("size", length_of(qemu), length_of(found), self.why_sizes_differ())
            return False
        if qemu != found:
            only = [e for e in qemu if e not in found][:4], [e for e in found if e not in qemu][:4]
            self.say("map", *only, self.why_maps_differ(qemu, found))
        return self.small(length_of(qemu))

    @staticmethod
    def small(length):
        return length <= LARGEST

    def why_we_read(self, error):
        """QEMU refuses what we read."""
        if "vhd-footer-not-at-eof" in self.codes:  # a warning: the bytes behind it do no harm
            return "read-further"
        if not self.corrupt():
            return ""
        if "unaligned" in error and self.kind == "qcow2":
            return "place-not-needed"
        return "read-further"

    def why_we_refuse(self, error):
        """We refuse what QEMU reads. It must be damaged."""
        if not self.corrupt():
            return ""
        past = ("past the end of the file", "beyond the end of the file", "no L2 table can be at",
                "does not lie in the file")
        return "past-end" if any(words in error for words in past) else "refused"

    def why_sizes_differ(self):
        footers = {"vhd-footer-copy-mismatch", "vhd-geometry-mismatch", "vhd-footer-checksum",
                   "vhd-footer-missing", "vhd-type-placement", "vhd-footer-copy-checksum",
                   "vhd-type-invalid", "vhd-fixed-spoofed-header"}
        if self.codes & footers:
            return "two-footers"
        return "size-policy" if "vhd-size-policy-ambiguous" in self.codes else ""

    def why_maps_differ(self, theirs, ours):
        """Only in sectors of a VHD that are marked as never written: zeros, where QEMU has data."""
        def theirs_at(entry):
            return next(e for e in theirs if e["start"] <= entry["start"] < e["start"] + e["length"])

        def sectors_left_out(entry):
            other = theirs_at(entry)
            if entry["data"]:
                return other["data"] and \
                    entry["offset"] - entry["start"] == other["offset"] - other["start"]
            return True
        left_out = self.kind == "vpc" and all(map(sectors_left_out, ours)) and \
            all(any(e["start"] <= other["start"] < e["start"] + e["length"] and not e["data"]
                    for e in ours) for other in theirs if not other["data"])
        return "sector-bitmaps" if left_out else ""

    # --- what a guest reads

    def contents(self):
        theirs, ours = self.path.with_name("theirs.raw"), self.path.with_name("ours.raw")
        told = run("qemu-img", "convert", "-O", "raw", "-f", self.kind, self.path, theirs,
                   timeout=SECONDS)
        done = run(BIN / "imgio", "convert", "--force", "-O", "raw", "-f", self.kind, self.path,
                   ours, timeout=SECONDS)
        if told.code and done.code:
            if not self.corrupt():
                self.say("check", told.err, sorted(self.codes))
            return
        if told.code:
            self.say("content", told.err, "can be read", self.why_we_read(told.err))
            return
        lost = []
        if done.code:
            self.say("content", "can be read", done.err, self.why_we_refuse(done.err))
            lost = self.salvaged(ours)
        if lost is None:
            return
        self.same_bytes(theirs.read_bytes(), ours.read_bytes(), lost)
        if not self.found:  # and by the tools' own comparison
            for command in (["qemu-img", "compare", "-q", "-f", self.kind, "-F", "raw"],
                            [BIN / "imgio", "compare", "-q", "-f", self.kind, "-F", "raw"]):
                same = run(*command, self.path, theirs, timeout=SECONDS)
                if same.code != 0:
                    self.say("compare", same.command, same.err + same.out)

    def salvaged(self, target):
        """Reads past the damage; the guest ranges that were given up. None: no disk at all."""
        listed = self.path.with_name("lost")
        listed.unlink(missing_ok=True)
        done = run(BIN / "imgio", "convert", "--force", "--salvage", "--lost-map", listed, "-O",
                   "raw", "-f", self.kind, self.path, target, timeout=SECONDS)
        if done.code != 0 or not listed.exists():
            return None
        rows = [line.split() for line in listed.read_text().splitlines()
                if line.startswith("0x")]
        return [(int(row[0], 16), int(row[1], 16)) for row in rows
                if len(row) == 3 and row[1].startswith("0x") and row[2] != "+"]

    def same_bytes(self, theirs, ours, lost):
        if len(theirs) != len(ours):
            self.say("size", len(theirs), len(ours), self.why_sizes_differ())
            return
        if theirs == ours:
            return
        for at in range(0, len(theirs), 512):
            if theirs[at:at + 512] != ours[at:at + 512] and \
                    not any(start < at + 512 and at < start + length for start, length in lost):
                self.say("content", f"at {at:#x} {theirs[at:at + 16].hex()}",
                         f"{ours[at:at + 16].hex()}", self.why_contents_differ())
                return

    def why_contents_differ(self):
        if self.kind != "vpc":
            return ""
        # … or the footer lies there, which is not zeros.
        if self.codes & {"vhd-bitmap-clear-sector-nonzero", "vhd-bat-entry-overlaps-footer"}:
            return "sector-bitmaps"
        return ""
