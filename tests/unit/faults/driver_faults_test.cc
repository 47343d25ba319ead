// SPDX-License-Identifier: Apache-2.0
// Every operation of every driver that writes, with its n-th read, write, sync or change of length
// failing once, a write wholly or behind some of its sectors: for each n until the operation gets
// through. The failure is reported, or the work is done in spite of it. Either way every sector
// reads as before or as afterwards, the image has no damage that a stop of the machine could not
// leave, and it can be written again.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "analyzers/check.h"
#include "io/fault.h"
#include "tests/fuzz/seeds.h"
#include "tests/unit/sanitized.h"

namespace imgfsck {
namespace {

using Kind = FaultPlan::Kind;

constexpr std::pair<Kind, const char*> kKinds[] = {
    {Kind::kRead, "read"},        {Kind::kWrite, "write"}, {Kind::kTornWrite, "torn write"},
    {Kind::kNoSpace, "no space"}, {Kind::kSync, "sync"},   {Kind::kTruncate, "truncate"}};

struct Operation {
  const char* name;
  Status (*run)(Driver& driver);
};

ByteVector Pattern(uint64_t size, uint8_t seed) {
  ByteVector bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<uint8_t>(seed + i * 11 + i / 253);
  return bytes;
}

const Operation kOperations[] = {
    {"write", [](Driver& d) { return d.Write(3000, Pattern(9000, 1)); }},
    {"write at the end",
     [](Driver& d) { return d.Write(d.VirtualSize() - 5000, Pattern(5000, 2)); }},
    {"write all", [](Driver& d) { return d.Write(0, Pattern(d.VirtualSize(), 3)); }},
    {"compress", [](Driver& d) { return d.WriteCompressed(0, ByteVector(d.ClusterSize(), 9)); }},
    {"zero", [](Driver& d) { return d.Zero(1000, 20'000); }},
    {"discard", [](Driver& d) { return d.Discard(0, d.VirtualSize()); }},
    {"grow", [](Driver& d) { return d.Resize(d.VirtualSize() + (200 << 10)); }},
    {"shrink", [](Driver& d) { return d.Resize(d.VirtualSize() / 2 / 512 * 512); }},
    {"empty", [](Driver& d) { return d.Empty(); }},
    {"create a snapshot", [](Driver& d) { return d.SnapshotCreate("new"); }},
    {"apply a snapshot", [](Driver& d) { return d.SnapshotApply("first"); }},
    {"delete a snapshot", [](Driver& d) { return d.SnapshotDelete("first"); }},
    {"add a bitmap", [](Driver& d) { return d.BitmapAdd("more", 1024, true); }},
    {"remove a bitmap", [](Driver& d) { return d.BitmapRemove("bits"); }},
};

class Image {
 public:
  Image(const Format& format, ByteStore& store) : data_(Pattern(128 << 10, 77)) {
    OpenOptions options;
    options.writable = true;
    options.data_store = &data_;
    options.data_source = &data_;
    auto opened = format.open(store, &store, options);
    if (!opened) {
      error_ = opened.error().message;
      return;
    }
    driver_ = std::move(*opened);
    driver_->SetBackingReader([](uint64_t, MutableBytes buffer) -> Status {
      std::ranges::fill(buffer, uint8_t{0x77});
      return Ok();
    });
  }
  Driver* driver() { return driver_.get(); }
  const std::string& error() const { return error_; }

 private:
  MemoryStore data_;
  std::unique_ptr<Driver> driver_;
  std::string error_;
};

// What a machine that stops may leave: leaks, counts that are too high, marks of an unclean end.
bool MayBeLeft(const Finding& finding, bool dirty) {
  const std::string_view code = finding.info().code;
  const Severity severity = finding.severity_or_default();
  if (severity == Severity::kInfo || severity == Severity::kLeak) return true;
  if (severity == Severity::kWarning) return true;
  if (code == "qcow2-l2-copied" || code == "qcow2-l1-copied") {
    return finding.detail.starts_with("clear");
  }
  // Lazy counts are made anew when the image is next opened for writing.
  return dirty && (code.find("refcount") != std::string_view::npos ||
                   code.starts_with("qcow2-rt-") || code.starts_with("qcow2-rb-"));
}

std::string Damage(const Format& format, const ByteVector& bytes) {
  MemoryStore store(bytes);
  CheckOptions options;
  options.threads = 1;
  auto report = CheckImage(store, format, options);
  if (!report) return report.error().message;
  const bool dirty =
      format.name == "qcow2" && bytes.size() > 80 && bytes[7] == 3 && (bytes[79] & 1) != 0;
  std::string text;
  for (const Finding& finding : report->findings.kept()) {
    if (MayBeLeft(finding, dirty)) continue;
    text += fmt::format("{} ({}): {}\n", finding.info().code, finding.structure, finding.Message());
  }
  return text;
}

class DriverFaults : public testing::TestWithParam<std::tuple<std::string, size_t>> {
 protected:
  void SetUp() override {
    const auto& [name, number] = GetParam();
    format_ = FindFormat(name);
    const auto seeds = fuzz::SeedsOf(*format_);
    if (number >= seeds.size()) GTEST_SKIP() << "no such image";
    bytes_ = seeds[number].bytes;
    // With an external data file the guest's bytes are not in the store that fails.
    if (seeds[number].name == "data file") GTEST_SKIP() << "its bytes lie elsewhere";
  }

  ByteVector Contents(const ByteVector& bytes, const char* when) {
    MemoryStore store(bytes);
    Image image(*format_, store);
    EXPECT_NE(image.driver(), nullptr) << when << ": " << image.error();
    if (image.driver() == nullptr) return {};
    ByteVector all(image.driver()->VirtualSize());
    const Status status = image.driver()->Read(0, all);
    EXPECT_TRUE(status) << when << ": " << (status ? "" : status.error().message);
    return all;
  }

  // Empty when each sector is of one of the two; behind the shorter disk's end nothing is promised.
  static std::string Mixed(const ByteVector& now, const ByteVector& a, const ByteVector& b) {
    for (size_t at = 0; at < now.size(); at += 512) {
      const auto same = [&](const ByteVector& other) {
        if (at + 512 > other.size()) return true;
        return std::equal(now.begin() + static_cast<ptrdiff_t>(at),
                          now.begin() + static_cast<ptrdiff_t>(std::min(at + 512, now.size())),
                          other.begin() + static_cast<ptrdiff_t>(at));
      };
      if (!same(a) && !same(b)) return fmt::format("sector {}", at / 512);
    }
    return "";
  }

  // False: the operation got through without meeting the fault.
  bool Fail(const Operation& operation, const FaultPlan& plan, const ByteVector& before,
            const ByteVector& after) {
    FaultStore store(bytes_, plan);
    bool done = false;
    {
      Image image(*format_, store);
      if (image.driver() == nullptr) return store.Fired();  // the fault met the opening
      done = operation.run(*image.driver()).has_value();
      done = image.driver()->Close().has_value() && done;
    }
    const ByteVector left = store.Survivor();
    EXPECT_EQ(Damage(*format_, left), "");
    const ByteVector now = Contents(left, "afterwards");
    EXPECT_EQ(Mixed(now, done ? after : before, after), "") << (done ? "done" : "failed");
    WriteAgain(left);
    return store.Fired();
  }

  void WriteAgain(const ByteVector& left) {
    MemoryStore store(left);
    Image image(*format_, store);
    ASSERT_NE(image.driver(), nullptr) << image.error();
    ASSERT_TRUE(image.driver()->Write(0, Pattern(3000, 30)));
    ASSERT_TRUE(image.driver()->Close());
    EXPECT_EQ(Damage(*format_, store.bytes()), "");
  }

  void Loop(const Operation& operation, const ByteVector& before, const ByteVector& after) {
    for (const auto& [kind, kind_name] : kKinds) {
      uint64_t faults = 0;
      // All of the first ten (three under sanitizers); then fewer and fewer of what is more of the
      // same.
      for (uint64_t at = 1; at < 5000; at += std::max<uint64_t>(1, at / (kSanitized ? 3 : 10))) {
        SCOPED_TRACE(fmt::format("{}: {} {}", operation.name, kind_name, at));
        FaultPlan plan;
        plan.kind = kind;
        plan.at = at;
        if (!Fail(operation, plan, before, after)) break;
        ++faults;
        if (HasFailure()) return;
      }
      if (kind == Kind::kRead) {
        EXPECT_GT(faults, 0u) << operation.name;
      }
    }
  }

  const Format* format_ = nullptr;
  ByteVector bytes_;
};

TEST_P(DriverFaults, OldOrNewAndSound) {
  ASSERT_EQ(Damage(*format_, bytes_), "");
  const ByteVector before = Contents(bytes_, "before");
  size_t operations = 0;
  for (const Operation& operation : kOperations) {
    MemoryStore store(bytes_);
    {
      Image image(*format_, store);
      ASSERT_NE(image.driver(), nullptr) << image.error();
      // What this driver cannot do, or this image has no use for.
      if (!operation.run(*image.driver()) || !image.driver()->Close()) continue;
    }
    ++operations;
    Loop(operation, before, Contents(store.bytes(), operation.name));
    if (HasFailure()) return;
  }
  EXPECT_GE(operations, 3u);
}

std::string NameOf(const testing::TestParamInfo<DriverFaults::ParamType>& test) {
  return fmt::format("{}_{}", std::get<0>(test.param), std::get<1>(test.param));
}

INSTANTIATE_TEST_SUITE_P(Formats, DriverFaults,
                         testing::Combine(testing::Values("qcow2", "qcow", "vpc", "cow"),
                                          testing::Range<size_t>(0, 9)),
                         NameOf);

}  // namespace
}  // namespace imgfsck
