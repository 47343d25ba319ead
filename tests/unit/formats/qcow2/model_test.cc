// SPDX-License-Identifier: Apache-2.0
// Random operations on the driver against a model in memory; now and then the image is closed,
// judged by our own check and by qemu-img, and opened again. IMGFSCK_LONG=1: ten thousand each.
#include "tests/unit/formats/qcow2/model.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/checked.h"
#include "tests/unit/formats/qcow2/image_fixture.h"
#include "tests/unit/sanitized.h"

namespace imgfsck::qcow2 {
namespace {

struct Case {
  const char* name;
  CreateOptions options;
  uint64_t size;  // bytes, at first
  Model::Limits limits;
  bool backing = false;
};

std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.name; }

class ModelTest : public testing::TestWithParam<Case> {
 protected:
  MemoryStore Create(const Case& c) {
    CreateOptions options = c.options;
    if (c.backing) {
      base_ = Pattern(5, c.size + 3000);
      base_.resize(AlignUp(base_.size(), kSector));
      side_.Put(base_);
      options["backing_file"] = side_.path();
      options["backing_fmt"] = "raw";
    }
    if (options.contains("data_file")) {
      options["data_file"] = side_.path();
      data_.emplace(ByteVector(c.size));
    }
    if (options.contains("encrypt.format")) {
      encryption_ = options["encrypt.format"];
      options["passphrase"] = "secret";
    }
    raw_data_ = options.contains("data_file_raw");
    return MemoryStore(NewImage(c.size, options));
  }
  void Open(MemoryStore& store) {
    OpenOptions options;
    options.writable = true;
    options.passphrase = "secret";
    if (data_) options.data_store = &*data_;
    auto driver = kQcow2Format.open(store, &store, options);
    ASSERT_OK(driver);
    driver_ = std::move(*driver);
    if (!base_.empty()) driver_->SetBackingReader(ReaderOf(base_));
  }
  // Snapshots read as they were, and both checks are content.
  void Judge(MemoryStore& store, const Model& model) {
    for (const auto& [name, saved] : model.snapshots) {
      OpenOptions options;
      options.snapshot = name;
      options.passphrase = "secret";
      auto view = kQcow2Format.open(store, nullptr, options);
      ASSERT_OK(view);
      if (!base_.empty()) (*view)->SetBackingReader(ReaderOf(base_));
      ByteVector bytes(saved.disk.size());
      ASSERT_EQ((*view)->VirtualSize(), bytes.size());
      ASSERT_OK((*view)->Read(0, bytes));
      ASSERT_EQ(bytes, saved.disk) << "snapshot " << name;
    }
    Verdict verdict = CheckBytes(store);
    ASSERT_TRUE(verdict.sound()) << verdict.text;
    if (data_) side_.Put(data_->bytes());
    ASSERT_EQ(QemuCheck(store.bytes(), encryption_), 0);
    if (raw_data_) {
      ASSERT_EQ(data_->bytes(), model.disk) << "the data file is not the disk";
    }
  }
  SideFile side_{"qcow2-model"};
  ByteVector base_;
  std::optional<MemoryStore> data_;
  std::string encryption_;
  bool raw_data_ = false;
  std::unique_ptr<Driver> driver_;
};

TEST_P(ModelTest, BehavesAsPlainMemory) {
  const Case& c = GetParam();
  const bool is_long = getenv("IMGFSCK_LONG") != nullptr;
  const int steps = is_long ? 10000 : kSanitized ? 100 : 300, often = is_long ? 250 : 100;
  MemoryStore store = Create(c);
  Open(store);
  Model model(c.size, base_, c.limits, 11);
  std::string history;
  for (int step = 1; step <= steps; ++step) {
    auto status = model.Step(*driver_);
    ASSERT_TRUE(status) << "step " << step << " " << model.last << ": " << status.error().message;
    history += fmt::format("{} {}\n", step, model.last);
    std::string difference = step % 10 == 0 || step % often == 0 ? model.Differences(*driver_) : "";
    ASSERT_EQ(difference, "") << "after\n" << history;
    if (step % 10 == 0) history.clear();
    if (step % often != 0) continue;
    ASSERT_OK(driver_->Close());
    driver_.reset();
    Judge(store, model);
    if (HasFatalFailure()) return;
    Open(store);
    ASSERT_EQ(model.Differences(*driver_), "") << "after opening again, step " << step;
  }
}

constexpr Model::Limits kAll{true, true, true, true, 700000};
constexpr Model::Limits kSmall{true, true, true, true, 90000};

INSTANTIATE_TEST_SUITE_P(
    Qcow2, ModelTest,
    testing::Values(
        Case{"c4k", {{"cluster_size", "4k"}}, 300000 / 512 * 512, kAll},
        Case{"c512", {{"cluster_size", "512"}}, 51200, kSmall},
        Case{"c512r64", {{"cluster_size", "512"}, {"refcount_bits", "64"}}, 51200, kSmall},
        Case{"c512r1", {{"cluster_size", "512"}, {"refcount_bits", "1"}}, 51200, kSmall},
        Case{"c1kr2", {{"cluster_size", "1k"}, {"refcount_bits", "2"}}, 51200, kSmall},
        Case{"c1kr4", {{"cluster_size", "1k"}, {"refcount_bits", "4"}}, 51200, kSmall},
        Case{"c2kr8", {{"cluster_size", "2k"}, {"refcount_bits", "8"}}, 102400, kAll},
        Case{"c2kr32", {{"cluster_size", "2k"}, {"refcount_bits", "32"}}, 102400, kAll},
        Case{"v2",
             {{"compat", "v2"}, {"cluster_size", "1k"}},
             102400,
             {true, true, false, false, 0}},
        Case{"v2resize",
             {{"compat", "v2"}, {"cluster_size", "1k"}},
             102400,
             {true, false, false, true, 700000}},
        Case{"v2backing",
             {{"compat", "v2"}, {"cluster_size", "1k"}},
             102400,
             {true, true, false, false, 0, true},
             true},
        Case{"zstd", {{"cluster_size", "4k"}, {"compression_type", "zstd"}}, 307200, kAll},
        Case{"backing", {{"cluster_size", "4k"}}, 307200, kAll, true},
        Case{"lazy", {{"cluster_size", "4k"}, {"lazy_refcounts", "on"}}, 307200, kAll},
        Case{"extl2", {{"cluster_size", "16k"}, {"extended_l2", "on"}}, 307200, kAll},
        Case{"extl2backing", {{"cluster_size", "16k"}, {"extended_l2", "on"}}, 307200, kAll, true},
        Case{"luks",
             {{"cluster_size", "4k"}, {"encrypt.format", "luks"}},
             102400,
             {false, true, true, true, 400000}},
        Case{"luksextl2r1",
             {{"cluster_size", "16k"},
              {"encrypt.format", "luks"},
              {"extended_l2", "on"},
              {"refcount_bits", "1"}},
             102400,
             {false, true, true, true, 400000}},
        Case{"aes",
             {{"cluster_size", "2k"}, {"encrypt.format", "aes"}},
             102400,
             {false, true, true, true, 400000}},
        Case{"datafile",
             {{"cluster_size", "4k"}, {"data_file", "here"}},
             307200,
             {false, false, true, true, 700000}},
        Case{"datafileextl2",
             {{"cluster_size", "16k"}, {"data_file", "here"}, {"extended_l2", "on"}},
             307200,
             {false, false, true, true, 700000}},
        Case{"datafileluks",
             {{"cluster_size", "4k"}, {"data_file", "here"}, {"encrypt.format", "luks"}},
             102400,
             {false, false, true, true, 400000}},
        Case{"rawdata",
             {{"cluster_size", "4k"}, {"data_file", "here"}, {"data_file_raw", "on"}},
             307200,
             {false, false, true, true, 700000}},
        Case{"rawdataextl2",
             {{"cluster_size", "16k"},
              {"data_file", "here"},
              {"data_file_raw", "on"},
              {"extended_l2", "on"}},
             307200,
             {false, false, true, true, 700000}},
        Case{"prealloc", {{"cluster_size", "4k"}, {"preallocation", "metadata"}}, 307200, kAll},
        Case{"extprealloc",
             {{"cluster_size", "16k"}, {"extended_l2", "on"}, {"preallocation", "metadata"}},
             307200,
             kAll,
             true}),
    [](const auto& parameter) { return parameter.param.name; });

}  // namespace
}  // namespace imgfsck::qcow2
