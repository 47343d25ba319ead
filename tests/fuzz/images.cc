// SPDX-License-Identifier: Apache-2.0
// The walk, the check, the driver and the repairs of every format.
#include <algorithm>
#include <map>

#include "repair/engine.h"
#include "tests/fuzz/targets.h"
#include "triage/content.h"

namespace imgfsck::fuzz {
namespace {

constexpr uint64_t kMostRows = 200'000;
constexpr uint64_t kMostRead = 4 * kMiB;      // bytes of a disk that are looked at
constexpr uint64_t kMostChecked = 64 * kMiB;  // bytes of a repaired file
constexpr uint64_t kBlock = 4096;

CheckOptions Options() {
  CheckOptions options;
  options.threads = 1;
  options.deep = true;
  options.max_findings = 1000;
  return options;
}

template <class Row>
void Drain(const std::unique_ptr<RowCursor<Row>>& cursor) {
  if (!cursor) return;
  uint64_t rows = 0;
  for (std::vector<Row> batch; rows < kMostRows; rows += batch.size()) {
    if (!cursor->NextBatch(&batch) || batch.empty()) return;
  }
}

void Walk(const Format* format, Bytes bytes) {
  MemoryStore store({bytes.begin(), bytes.end()});
  ProbeFormat(store);
  RecognizeDisk(store);
  auto rows = format->inspect(store, "image");
  if (!rows) return;
  (*rows)->Image();
  (*rows)->Fields();
  (*rows)->Snapshots();
  (*rows)->Bitmaps();
  (*rows)->Links();
  (*rows)->Structures();
  (*rows)->Layers();
  Drain((*rows)->BitmapRanges());
  Drain((*rows)->Regions({}));
  RowQuery query;
  Drain((*rows)->Mappings(query));
  query.host_begin = bytes.size() / 2;
  query.host_end = query.host_begin + 1;
  Drain((*rows)->Mappings(query));
  Drain((*rows)->Regions(query));
  query = {};
  query.guest_begin = query.guest_end = 70'000;
  query.per_cluster = true;
  Drain((*rows)->Mappings(query));
}

void Check(const Format* format, Bytes bytes) {
  MemoryStore store({bytes.begin(), bytes.end()});
  for (const bool deep : {true, false}) {
    CheckOptions options = Options();
    options.deep = deep;
    auto report = CheckImage(store, *format, options);
    if (!report) continue;
    Require(std::ranges::equal(store.bytes(), bytes), "a check writes nothing");
    for (const Finding& finding : report->findings.kept()) {
      Require(!finding.Message().empty(), "a finding has words");
    }
    if (report->refcounts) Drain(report->refcounts({}));
  }
}

// Opened strictly; what can be read is read, and then written to.
void Drive(const Format* format, Bytes bytes) {
  if (format->open == nullptr) return;
  MemoryStore store({bytes.begin(), bytes.end()}), data;
  OpenOptions options;
  options.writable = true;
  options.data_store = &data;
  options.data_source = &data;
  auto opened = format->open(store, &store, options);
  if (!opened) return;
  Driver& driver = **opened;
  const uint64_t size = driver.VirtualSize();
  ByteVector buffer(kBlock);
  for (uint64_t at = 0; at < std::min(size, kMostRead);) {
    const uint64_t length = std::min(kBlock, size - at);
    (void)driver.Read(at, MutableBytes(buffer).first(length));
    auto status = driver.StatusAt(at, size - at);
    if (status) Require(status->length > 0 && status->length <= size - at, "a status has a length");
    at += length;
  }
  driver.Snapshots();
  for (const BitmapInfo& bitmap : driver.Bitmaps()) (void)driver.BitmapDirty(bitmap.name);
  const uint64_t old_file = store.Size();
  ByteVector pattern(std::min<uint64_t>(size, 3000), 0x5A);
  const uint64_t place = size > 80'000 ? 70'001 : 0;
  const uint64_t length = std::min<uint64_t>(pattern.size(), size - std::min(size, place));
  if (length > 0) {
    const Bytes written = Bytes(pattern).first(length);
    if (driver.Write(place, written)) {
      ByteVector back(length);
      Require(driver.Read(place, back) && std::ranges::equal(back, written),
              "what was written is read");
    }
    (void)driver.Zero(place, length);
    (void)driver.Discard(0, std::min<uint64_t>(size, 100'000));
  }
  (void)driver.SnapshotCreate("new");
  for (const SnapshotInfo& snapshot : driver.Snapshots()) (void)driver.SnapshotDelete(snapshot.id);
  (void)driver.Close();
  Require(store.Size() <= 2 * old_file + 64 * kMiB, "a small write makes no large file");
}

// What the driver reads of the disk, a block each; blocks that it cannot read are missing.
std::map<uint64_t, ByteVector> Readable(const Format& format, const ByteSource& source) {
  std::map<uint64_t, ByteVector> blocks;
  if (format.open == nullptr) return blocks;
  auto driver = format.open(source, nullptr, {});
  if (!driver) return blocks;
  const uint64_t size = std::min((*driver)->VirtualSize(), kMostRead);
  for (uint64_t at = 0; at < size; at += kBlock) {
    ByteVector block(std::min(kBlock, size - at));
    if ((*driver)->Read(at, block)) blocks.emplace(at, std::move(block));
  }
  return blocks;
}

uint64_t Corruptions(const CheckReport& report) {
  return report.findings.FindingsOf(Severity::kCorruption);
}

// Tables that are missing are added, as long as the header asks for them.
uint64_t MostAfterRepair(const Format& format, const ByteSource& source) {
  // The top table of a qcow version 1 may have 2 GiB: a hole at the end of the file.
  const uint64_t table = format.name == "qcow" ? uint64_t{2} << 30 : 0;
  return 4 * source.Size() + 16 * kMiB + table;
}

// Marked as never written, and holding data: QEMU reads the data and goes on to after the repair,
// our driver does not before it.
bool ShowsDataThatWasHidden(const CheckReport& report) {
  return std::ranges::any_of(report.findings.kept(), [](const Finding& finding) {
    return finding.problem == Problem::kVhdBitmapClearSectorNonzero;
  });
}

void RepairAs(RepairMode mode, const Format& format, const ByteSource& source) {
  RepairOptions options;
  options.mode = mode;
  options.max_copy = 4 * kMiB;
  options.check = Options();
  auto plan = MakePlan(source, format, options);
  if (!plan) return;
  const Overlay& repaired = *plan->overlay;
  Require(repaired.Size() <= MostAfterRepair(format, source), "a repair makes no large file");
  if (plan->Empty() || repaired.Size() > kMostChecked) return;
  Require(Corruptions(plan->before) > 0 || Corruptions(plan->after) == 0,
          "a repair damages nothing that was sound");
  // What is checked is what would be written.
  ByteVector bytes(repaired.Size());
  Require(ReadExact(repaired, 0, bytes).has_value(), "a repaired image can be read");
  MemoryStore again(std::move(bytes));
  auto second = MakePlan(again, format, options);
  Require(second.has_value(), "a repaired image can be repaired");
  Require(Corruptions(second->before) == Corruptions(plan->after), "two checks say the same");
  Require(second->Empty(), "a second repair has nothing to do");
  if (mode != RepairMode::kSafe || ShowsDataThatWasHidden(plan->before)) return;
  const auto before = Readable(format, source), after = Readable(format, again);
  if (after.empty() && before.empty()) return;
  Require(!after.empty(), "a repaired image opens if it did before");
  for (const auto& [at, block] : before) {
    const auto now = after.find(at);
    if (at + block.size() > kMostRead) continue;
    Require(now != after.end() && now->second == block, "a safe repair changes no guest byte");
  }
}

void Repair(const Format* format, Bytes bytes) {
  MemoryStore store({bytes.begin(), bytes.end()});
  for (const RepairMode mode : {RepairMode::kSafe, RepairMode::kAll}) {
    RepairAs(mode, *format, store);
    Require(std::ranges::equal(store.bytes(), bytes), "a plan writes nothing");
  }
}

}  // namespace

void AddImageTargets(std::vector<Target>* targets) {
  const auto seeds = [](const Format* format) { return SeedsOf(*format); };
  for (const Format* format : AllFormats()) {
    const std::string name(format->name);
    targets->push_back({name + "-walk", format, Walk, seeds});
    targets->push_back({name + "-check", format, Check, seeds});
    targets->push_back({name + "-driver", format, Drive, seeds});
    if (FindRepairer(format->name) != nullptr) {
      targets->push_back({name + "-repair", format, Repair, seeds});
    }
  }
}

}  // namespace imgfsck::fuzz
