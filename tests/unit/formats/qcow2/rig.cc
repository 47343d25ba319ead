// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/formats/qcow2/rig.h"

#include <fmt/format.h>

#include <algorithm>

#include "tests/unit/formats/qcow2/image_fixture.h"
#include "tests/unit/sanitized.h"

namespace imgfsck::qcow2 {
namespace {

constexpr uint64_t kDisk = 200 << 10;

const ByteVector& Base() {
  static const ByteVector base = Pattern(77, 150 << 10);
  return base;
}

bool InUse(const CheckReport& report) {
  return std::ranges::any_of(report.findings.kept(), [](const Finding& finding) {
    return finding.info().code == "qcow2-bitmap-in-use";
  });
}

// What a stop of the machine may leave behind, and no more.
bool Allowed(const CheckReport& report, const Finding& finding, const ByteVector& image) {
  const std::string code(finding.info().code);
  const Severity severity = finding.severity_or_default();
  if (severity == Severity::kInfo || severity == Severity::kLeak) return true;
  if (code == "qcow2-bitmap-in-use" || code == "qcow2-hdr-dirty") return true;
  // What else leaks may look like.
  if (code == "qcow2-snap-orphan-l1") return true;
  if (code == "qcow2-l2-orphan" && severity == Severity::kWarning) return true;
  if (code == "qcow2-l2-empty-with-leaks" && image[7] == 2) return true;
  // A cluster that is nobody else's any more may still look shared; never the reverse.
  if ((code == "qcow2-l2-copied" || code == "qcow2-l1-copied") &&
      finding.detail.starts_with("clear")) {
    return true;
  }
  // A bitmap in use has the length that the disk had, and is worth nothing anyway.
  if (code == "qcow2-bitmap-tail-bits" && InUse(report)) return true;
  // Lazy refcounts: the tree is rebuilt when the image is opened for writing.
  const bool dirty = (image[79] & 1) != 0;
  return dirty && (code.find("refcount") != std::string::npos || code.starts_with("qcow2-rt-") ||
                   code.starts_with("qcow2-rb-"));
}

void Season(Driver& driver, const Layout& layout, bool snapshot) {
  const Capabilities can = driver.capabilities();
  EXPECT_TRUE(driver.Write(16 << 10, Pattern(20, 40000)));
  if (can.compressed_write) {
    EXPECT_TRUE(driver.WriteCompressed(96 << 10, ByteVector(32 << 10, 5)));
  }
  if (snapshot) {
    EXPECT_TRUE(driver.SnapshotCreate("first"));
    EXPECT_TRUE(driver.Write(20 << 10, Pattern(21, 5000)));
  }
  EXPECT_TRUE(driver.Zero(160 << 10, 20000));
  if (!layout.v2()) {
    EXPECT_TRUE(driver.BitmapAdd("bits", 1024, true));
    EXPECT_TRUE(driver.Write(130 << 10, Pattern(23, 3000)));
    EXPECT_TRUE(driver.BitmapAdd("other", 4096, false));
  }
  EXPECT_TRUE(driver.Write(190 << 10, Pattern(22, 5000)));
  EXPECT_TRUE(driver.Close());
}

const std::vector<Layout>& Layouts() {
  static const std::vector<Layout> layouts = {
      {"c512", {{"cluster_size", "512"}}},
      {"c4k", {{"cluster_size", "4k"}}},
      {"c1kr1", {{"cluster_size", "1k"}, {"refcount_bits", "1"}}},
      {"lazy", {{"cluster_size", "1k"}, {"lazy_refcounts", "on"}}},
      {"extl2", {{"cluster_size", "16k"}, {"extended_l2", "on"}}},
      {"v2", {{"cluster_size", "1k"}, {"compat", "v2"}}},
      {"c512r64zstd",
       {{"cluster_size", "512"}, {"refcount_bits", "64"}, {"compression_type", "zstd"}}},
      {"backing", {{"cluster_size", "4k"}}, true},
      {"extl2backing", {{"cluster_size", "16k"}, {"extended_l2", "on"}}, true},
      {"luks", {{"cluster_size", "4k"}, {"encrypt.format", "luks"}, {"encrypt.iter-time", "0"}}},
      {"aes", {{"cluster_size", "1k"}, {"encrypt.format", "aes"}}},
      {"datafile", {{"cluster_size", "4k"}, {"data_file", "/data"}}},
      {"rawdata", {{"cluster_size", "4k"}, {"data_file", "/data"}, {"data_file_raw", "on"}}},
  };
  return layouts;
}

const std::vector<Operation>& Operations() {
  static const std::vector<Operation> operations = {
      {"write", [](Driver& d) { return d.Write(3000, Pattern(1, 9000)); }},
      {"overwrite", [](Driver& d) { return d.Write(17 * 1024 + 100, Pattern(2, 30000)); }},
      {"write_far", [](Driver& d) { return d.Write(d.VirtualSize() - 5000, Pattern(3, 5000)); }},
      {"write_much", [](Driver& d) { return d.Write(0, Pattern(4, d.VirtualSize())); }},
      {"write_streams", [](Driver& d) { return d.Write((96 << 10) + 700, Pattern(5, 9000)); }},
      {"compress", [](Driver& d) { return d.WriteCompressed(0, ByteVector(16 * 4096, 9)); }},
      {"compress_streams",
       [](Driver& d) { return d.WriteCompressed(96 << 10, ByteVector(16 << 10, 8)); }},
      {"zero", [](Driver& d) { return d.Zero(1000, 60000); }},
      {"zero_streams", [](Driver& d) { return d.Zero((96 << 10) + 10, 20000); }},
      {"discard", [](Driver& d) { return d.Discard(0, d.VirtualSize()); }},
      {"snapshot_create", [](Driver& d) { return d.SnapshotCreate("new"); }},
      {"snapshot_delete", [](Driver& d) { return d.SnapshotDelete("first"); }},
      {"snapshot_apply", [](Driver& d) { return d.SnapshotApply("first"); }},
      {"bitmap_add", [](Driver& d) { return d.BitmapAdd("more", 1024, true); }},
      {"bitmap_remove", [](Driver& d) { return d.BitmapRemove("bits"); }},
      {"bitmap_clear", [](Driver& d) { return d.BitmapClear("bits"); }},
      {"bitmap_enable", [](Driver& d) { return d.BitmapSetEnabled("other", true); }},
      {"bitmap_disable", [](Driver& d) { return d.BitmapSetEnabled("bits", false); }},
      {"bitmap_merge", [](Driver& d) { return d.BitmapMerge("other", "bits"); }},
      {"grow", [](Driver& d) { return d.Resize(3 << 20); }},
      // Its L1 table is longer than a refcount block counts where clusters are small.
      {"grow_far", [](Driver& d) { return d.Resize(600 << 20); }},
      {"shrink", [](Driver& d) { return d.Resize(50 << 10); }},
      {"empty", [](Driver& d) { return d.Empty(); }},
      {"backing",
       [](Driver& d) {
         return d.SetBacking(BackingReference{"/x", "raw"});
       }},
  };
  return operations;
}

// Whether images of that layout can do it at all.
bool Goes(const Layout& layout, const Operation& operation) {
  const std::string name = operation.name;
  auto is = [&](std::string_view what) { return name.find(what) != std::string::npos; };
  if (is("bitmap")) return !layout.v2();
  if (is("snapshot")) return !layout.data_file();
  if (is("compress")) return !layout.data_file() && !layout.encrypted();
  if (is("streams")) return !layout.data_file() && !layout.encrypted();
  if (is("far") && is("grow")) return std::string(layout.name).starts_with("c512");
  if (is("empty") || is("backing")) return !layout.options.contains("data_file_raw");
  return true;
}

}  // namespace

std::ostream& operator<<(std::ostream& out, const Trial& trial) {
  return out << trial.layout->name << "_" << trial.operation->name;
}

// Under the sanitizers, which make it five times slower, each layout gets every fifth operation,
// another fifth each.
std::vector<Trial> AllTrials() {
  const size_t step = kSanitized && getenv("IMGFSCK_LONG") == nullptr ? 5 : 1;
  std::vector<Trial> trials;
  size_t turn = 0;
  for (const Layout& layout : Layouts()) {
    size_t number = turn++;
    for (const Operation& operation : Operations()) {
      if (!Goes(layout, operation)) continue;
      if (number++ % step == 0) trials.push_back({&layout, &operation, trials.size()});
    }
  }
  return trials;
}

std::vector<size_t> Trial::Kinds(size_t count, size_t few) const {
  if (getenv("IMGFSCK_LONG") != nullptr) few = count;
  std::vector<size_t> kinds;
  for (size_t i = 0; i < few; ++i) kinds.push_back((number + i) % count);
  return kinds;
}

Files Seasoned(const Layout& layout, const Operation& operation) {
  const std::string name = operation.name;
  const bool resizes = name.starts_with("grow") || name == "shrink";
  CreateOptions options = layout.options;
  if (layout.encrypted()) options["passphrase"] = "secret";
  if (layout.backing) options.insert({{"backing_file", "/base"}, {"backing_fmt", "raw"}});
  Rig rig(layout, {NewImage(kDisk, options), ByteVector(layout.data_file() ? kDisk : 0)});
  EXPECT_TRUE(rig.Open());
  Season(rig.driver(), layout, !layout.data_file() && !(layout.v2() && resizes));
  return rig.Survivors();
}

Rig::Rig(const Layout& layout, const Files& files, FaultPlan image_plan, FaultPlan data_plan)
    : layout_(layout), image_(files.image, image_plan), data_(files.data, data_plan) {
  image_.StopsWith(&data_);
  data_.StopsWith(&image_);
}

Status Rig::Open(bool writable) {
  OpenOptions options;
  options.writable = writable;
  options.passphrase = layout_.encrypted() ? "secret" : "";
  options.data_store = layout_.data_file() ? &data_ : nullptr;
  IMG_ASSIGN_OR_RETURN(driver_, kQcow2Format.open(image_, writable ? &image_ : nullptr, options));
  if (layout_.backing) driver_->SetBackingReader(ReaderOf(Base()));
  return Ok();
}

ByteVector Contents(const Layout& layout, const Files& files) {
  Rig rig(layout, files);
  auto opened = rig.Open(false);
  EXPECT_TRUE(opened) << (opened ? "" : opened.error().message);
  if (!opened) return {};
  ByteVector bytes(std::min(rig.driver().VirtualSize(), kLookedAt));
  auto status = rig.driver().Read(0, bytes);
  EXPECT_TRUE(status) << (status ? "" : status.error().message);
  if (layout.options.contains("data_file_raw")) {
    ByteVector raw(bytes.size());
    std::copy_n(files.data.begin(), std::min(raw.size(), files.data.size()), raw.begin());
    EXPECT_EQ(raw, bytes) << "the data file reads otherwise than the image";
  }
  return bytes;
}

std::string Damage(const Files& files) {
  MemoryStore store(files.image);
  CheckOptions options;
  options.threads = 1;
  auto report = CheckImage(store, kQcow2Format, options);
  if (!report) return report.error().message;
  std::string text;
  for (const Finding& finding : report->findings.kept()) {
    if (Allowed(*report, finding, files.image)) continue;
    text += std::string(finding.info().code) + " " + finding.Message() + " (" + finding.structure +
            ")\n";
  }
  return text;
}

std::string Mixed(const ByteVector& now, const ByteVector& before, const ByteVector& after) {
  if (now.size() != before.size() && now.size() != after.size()) return "size";
  for (size_t at = 0; at < now.size(); at += kSector) {
    auto same = [&](const ByteVector& other) {
      // Behind the end of the shorter disk nothing is promised.
      return at >= other.size() || std::equal(now.begin() + static_cast<ptrdiff_t>(at),
                                              now.begin() + static_cast<ptrdiff_t>(at + kSector),
                                              other.begin() + static_cast<ptrdiff_t>(at));
    };
    if (!same(before) && !same(after)) return fmt::format("sector {}", at / kSector);
  }
  return "";
}

}  // namespace imgfsck::qcow2
