// SPDX-License-Identifier: Apache-2.0
// Files that are not images and untrusted all the same: undo records, plans, ddrescue maps; and
// SQL.
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "io/bad_ranges.h"
#include "io/undo_record.h"
#include "model/query.h"
#include "repair/engine.h"
#include "repair/plan_file.h"
#include "tests/fuzz/targets.h"

namespace imgfsck::fuzz {
namespace {

// A file of its own in memory, removed again.
class File {
 public:
  explicit File(Bytes bytes) {
    const char* folder = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    path_ = std::string(folder) + "/imgfsck-fuzz-" + std::to_string(getpid());
    FILE* file = std::fopen(path_.c_str(), "wb");
    IMG_CHECK(file != nullptr);
    IMG_CHECK(std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size());
    IMG_CHECK(std::fclose(file) == 0);
  }
  ~File() {
    for (const char* more : {"", "-journal", "-wal"}) unlink((path_ + more).c_str());
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

ByteVector Content(const std::string& path) {
  auto file = FileSource::Open(path);
  IMG_CHECK(file.has_value());
  ByteVector bytes((*file)->Size());
  IMG_CHECK(ReadExact(**file, 0, bytes).has_value());
  return bytes;
}

constexpr size_t kImage = 6000;  // bytes of the image that the records are of

void UndoRecordTarget(const Format*, Bytes bytes) {
  const File file(bytes);
  auto record = UndoRecord::Open(file.path());
  if (!record) return;
  uint64_t patches = 0;
  (void)(*record)->ForEachPatch([&](const UndoRecord::Patch&) {
    ++patches;
    return Ok();
  });
  Require(patches == (*record)->patch_count(), "an accepted record holds what it says");
  MemoryStore image(ByteVector(kImage, 'o'));
  (void)(*record)->Compare(image);
}

std::vector<Seed> UndoRecords(const Format*) {
  MemoryStore image(ByteVector(kImage, 'o'));
  std::vector<Seed> seeds;
  for (const uint64_t size : {uint64_t{3000}, uint64_t{6000}, uint64_t{9000}}) {
    Overlay overlay(image);
    IMG_CHECK(overlay.SetSize(size).has_value());
    IMG_CHECK(overlay.WriteAt(700, ByteVector(1000, 'n')).has_value());
    const File place({});
    const std::string path = place.path() + "-new";
    unlink(path.c_str());
    auto record = UndoRecord::Create(path, "/disk", overlay);
    IMG_CHECK(record.has_value());
    record->reset();
    seeds.push_back({"record", Content(path)});
    unlink(path.c_str());
  }
  return seeds;
}

// A qcow2 with a leak: something to repair.
ByteVector Leaky() {
  ByteVector bytes = SeedsOf(*FindFormat("qcow2")).front().bytes;
  bytes.resize(bytes.size() + 512);
  PutBe<uint32_t>(bytes, 92, 4);
  return bytes;
}

RepairOptions RepairAll() {
  RepairOptions options;
  options.mode = RepairMode::kAll;
  options.check.threads = 1;
  return options;
}

void PlanFileTarget(const Format*, Bytes bytes) {
  static const ByteVector image = Leaky();
  MemoryStore store(image);
  const File file(bytes);
  const Format& format = *FindFormat("qcow2");
  const CheckOptions check = RepairAll().check;
  auto plan = LoadPlanFile(file.path(), store, format, KitFor(format, check));
  if (plan) Require(plan->overlay->Size() <= 64 * kMiB, "a plan makes no large file");
}

std::vector<Seed> PlanFiles(const Format*) {
  MemoryStore store(Leaky());
  auto plan = MakePlan(store, *FindFormat("qcow2"), RepairAll());
  IMG_CHECK(plan.has_value());
  const File place({});
  const std::string path = place.path() + "-plan";
  unlink(path.c_str());
  IMG_CHECK(WritePlanFile(*plan, path, "image", RepairMode::kAll).has_value());
  std::vector<Seed> seeds = {{"plan", Content(path)}};
  unlink(path.c_str());
  return seeds;
}

void MapTarget(const Format*, Bytes bytes) {
  auto bad = ParseDdrescueMap(AsText(bytes));
  if (!bad) return;
  uint64_t end = 0;
  for (const HostRange& range : *bad) {
    Require(range.offset.value >= end && range.length > 0, "a map's ranges ascend");
    end = range.end();
  }
}

std::vector<Seed> Texts(std::initializer_list<std::string_view> texts) {
  std::vector<Seed> seeds;
  for (const std::string_view text : texts) {
    seeds.push_back({"text", {AsBytes(text).begin(), AsBytes(text).end()}});
  }
  return seeds;
}

std::vector<Seed> Maps(const Format*) {
  return Texts({"# a map\n0x0 + 1\n0x0 0x1000 +\n0x1000 0x200 -\n0x1200 0x10000 +\n",
                "0 ? 1\n0 512 *\n512 0xffffffffffff0000 /\n"});
}

void SqlTarget(const Format*, Bytes bytes) {
  static const ByteVector image = Leaky();
  MemoryStore store(image);
  auto rows = FindFormat("qcow2")->inspect(store, "image");
  IMG_CHECK(rows.has_value());
  ModelSource source;
  source.rows = rows->get();
  auto model = LiveModel::Open(source);
  IMG_CHECK(model.has_value());
  // What would run for hours is stopped, as a signal would.
  sqlite3_progress_handler((*model)->db(), 200'000, [](void*) { return 1; }, nullptr);
  sqlite3_limit((*model)->db(), SQLITE_LIMIT_LENGTH, 1 << 20);
  std::string out;
  {
    TextWriter writer(&out);
    (void)RunQuery(**model, AsText(bytes), QueryMode::kTable, writer);
  }
  Require(out.find('\x1b') == std::string::npos, "no escape reaches a terminal");
  Require(std::ranges::equal(store.bytes(), image), "a query writes nothing");
}

std::vector<Seed> Queries(const Format*) {
  return Texts(
      {"SELECT * FROM field WHERE structure='header'",
       "SELECT kind, sum(length) FROM region GROUP BY kind ORDER BY 2 DESC",
       "SELECT * FROM mapping WHERE guest_at=70000; SELECT * FROM mapping WHERE host_at=0x5000",
       "SELECT m.guest_offset FROM mapping m JOIN region r ON r.host_offset=m.host_offset LIMIT 3",
       "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 9) SELECT char(i) FROM "
       "n",
       "SELECT * FROM mapping WHERE layer='active' AND guest_offset+length>512 AND per_cluster=1",
       "PRAGMA table_info(field)", "ATTACH 'x' AS y; DELETE FROM field; DROP TABLE image",
       "SELECT hex(name), quote(path), printf('%s',char(27)) FROM image, link"});
}

}  // namespace

void AddRecordTargets(std::vector<Target>* targets) {
  targets->push_back({"undo-record", nullptr, UndoRecordTarget, UndoRecords});
  targets->push_back({"plan-file", nullptr, PlanFileTarget, PlanFiles});
  targets->push_back({"bad-map", nullptr, MapTarget, Maps});
  targets->push_back({"sql", nullptr, SqlTarget, Queries});
}

}  // namespace imgfsck::fuzz
