// SPDX-License-Identifier: Apache-2.0
// The driver against other programs: what QEMU wrote we read and the other way round, libvhdi reads
// our footers, and images by Virtual PC and Hyper-V survive a write.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "io/file.h"
#include "tests/unit/formats/vhd/vhd_helpers.h"
#include "tests/unit/io/temp_dir.h"

namespace imgfsck::vhd {
namespace {

void Shell(const std::string& command) {
  ASSERT_EQ(std::system(("{ " + command + "; } >/dev/null").c_str()), 0) << command;
}

class WithFiles : public testing::Test {
 protected:
  std::unique_ptr<Driver> OpenFile(const std::string& name) {
    auto store = FileStore::Open(dir_.File(name), FileStore::Mode::kExisting);
    EXPECT_TRUE(store) << (store ? "" : store.error().message);
    if (!store) return nullptr;
    store_ = std::move(*store);
    return OpenStore(kFormat, *store_);
  }
  // What QEMU's guest would read.
  std::string QemuContent(const std::string& name) {
    Shell("qemu-img convert -f vpc -O raw " + dir_.File(name) + " " + dir_.File("raw"));
    return dir_.Get("raw");
  }
  std::string OurContent(const std::string& name) {
    auto driver = OpenFile(name);
    return driver ? std::string(AsText(ReadAll(*driver))) : "";
  }
  void QemuWrite(const std::string& name, const std::string& commands) {
    Shell("qemu-io -f vpc " + commands + " " + dir_.File(name));
  }

  TempDir dir_;
  std::unique_ptr<FileStore> store_;
};

struct Shape {
  const char* subformat;
  const char* force_size;
};
class VhdWithQemu : public WithFiles, public testing::WithParamInterface<Shape> {};

TEST_P(VhdWithQemu, ReadsAndExtendsWhatQemuWrote) {
  Shell(std::string("qemu-img create -q -f vpc -o subformat=") + GetParam().subformat +
        ",force_size=" + GetParam().force_size + " " + dir_.File("i.vhd") + " 23M");
  QemuWrite("i.vhd",
            "-c 'write -P 1 3M 70000' -c 'write -P 2 0 512' -c 'write -P 3 22M 1M' "
            "-c 'write -P 4 9M 2M'");
  std::string before = QemuContent("i.vhd");
  EXPECT_TRUE(OurContent("i.vhd") == before);
  {
    auto driver = OpenFile("i.vhd");
    ASSERT_TRUE(driver);
    ASSERT_EQ(driver->VirtualSize(), before.size());
    ByteVector bytes = Pattern(5, 3 * kMiB);
    ASSERT_TRUE(driver->Write(2 * kMiB - 100, bytes));
    std::ranges::copy(bytes, before.begin() + 2 * kMiB - 100);
    ASSERT_TRUE(driver->Write(15 * kMiB, Bytes(bytes).first(1)));
    before[15 * kMiB] = static_cast<char>(bytes[0]);
    ASSERT_TRUE(driver->Zero(9 * kMiB + 100, kMiB));
    std::fill_n(before.begin() + 9 * kMiB + 100, kMiB, '\0');
    ASSERT_TRUE(driver->Close());
  }
  EXPECT_TRUE(QemuContent("i.vhd") == before);
  QemuWrite("i.vhd", "-c 'write -P 6 17M 4096' -c 'write -P 7 2M 1M'");
  EXPECT_TRUE(OurContent("i.vhd") == QemuContent("i.vhd"));
}

TEST_P(VhdWithQemu, QemuReadsAndExtendsWhatWeWrote) {
  {
    auto store = FileStore::Open(dir_.File("o.vhd"), FileStore::Mode::kCreateNew);
    ASSERT_TRUE(store);
    CreateOptions options{{"subformat", GetParam().subformat},
                          {"force_size", GetParam().force_size}};
    if (options["subformat"] == "dynamic") options["block_size"] = "512K";
    MakeVhd(**store, 23 * kMiB, options);
    auto driver = OpenStore(kFormat, **store);
    ASSERT_TRUE(driver);
    ASSERT_TRUE(driver->Write(5 * kMiB + 3, Pattern(1, 2 * kMiB)));
    ASSERT_TRUE(driver->Write(0, Pattern(2, 100)));
    ASSERT_TRUE(driver->Resize(33 * kMiB));
    ASSERT_TRUE(driver->Write(driver->VirtualSize() - 9, Pattern(3, 9)));
    ASSERT_TRUE(driver->Close());
  }
  EXPECT_TRUE(OurContent("o.vhd") == QemuContent("o.vhd"));
  Shell("vhdiinfo " + dir_.File("o.vhd"));
  QemuWrite("o.vhd", "-c 'write -P 9 4M 4M' -c 'write -P 8 32M 512'");
  EXPECT_TRUE(OurContent("o.vhd") == QemuContent("o.vhd"));
}

INSTANTIATE_TEST_SUITE_P(Shapes, VhdWithQemu,
                         testing::Values(Shape{"fixed", "off"}, Shape{"fixed", "on"},
                                         Shape{"dynamic", "off"}, Shape{"dynamic", "on"}),
                         [](const auto& shape) {
                           return std::string(shape.param.subformat) + "_" + shape.param.force_size;
                         });

// qemu-img prints one line "start length host-offset file" a run of data.
TEST_F(WithFiles, MapsAsQemuDoes) {
  Shell("qemu-img create -q -f vpc " + dir_.File("i.vhd") + " 64M");
  QemuWrite("i.vhd", "-c 'write 4M 512' -c 'write 0 512' -c 'write 30M 5M' -c 'write 63M 1'");
  Shell("qemu-img map -f vpc " + dir_.File("i.vhd") + " | tail -n +2 | awk '{print $1, $2, $3}' >" +
        dir_.File("human"));
  std::ifstream human(dir_.File("human"));
  auto store = FileStore::Open(dir_.File("i.vhd"), FileStore::Mode::kExisting);
  ASSERT_TRUE(store);
  auto rows = kFormat.inspect(**store, "i.vhd");
  ASSERT_TRUE(rows);
  auto cursor = (*rows)->Mappings({});
  std::vector<MappingRow> batch, all;
  do {
    ASSERT_TRUE(cursor->NextBatch(&batch));
    all.insert(all.end(), batch.begin(), batch.end());
  } while (!batch.empty());
  std::erase_if(all, [](const MappingRow& row) { return row.state != MappingState::kData; });
  size_t runs = 0;
  human >> std::hex;
  std::string start, length, offset;
  while (human >> start >> length >> offset) {
    ASSERT_LT(runs, all.size());
    EXPECT_EQ(all[runs].guest_offset, std::stoull(start, nullptr, 16));
    EXPECT_EQ(all[runs].length, std::stoull(length, nullptr, 16));
    EXPECT_EQ(all[runs].host_offset, std::stoull(offset, nullptr, 16));
    ++runs;
  }
  EXPECT_EQ(runs, all.size());
  EXPECT_GE(runs, 5u);
}

class VhdByOthers : public WithFiles, public testing::WithParamInterface<const char*> {};

TEST_P(VhdByOthers, SurvivesAWrite) {
  Shell(std::string("bunzip2 -kc " IMGFSCK_SOURCE_DIR "/tests/fixtures/vhd/") + GetParam() +
        ".vhd.bz2 >" + dir_.File("s.vhd"));
  const std::string before = dir_.Get("s.vhd");
  ASSERT_GT(before.size(), 200'000u);
  auto driver = OpenFile("s.vhd");
  ASSERT_TRUE(driver);
  const uint64_t at = 77 * kMiB + 512 * 9;
  ASSERT_TRUE(driver->Write(at, Pattern(1, 4096)));
  ASSERT_TRUE(driver->Close());
  driver = OpenFile("s.vhd");
  ASSERT_TRUE(driver);
  EXPECT_EQ(driver->VirtualSize(), std::string(GetParam()) == "virtualpc-dynamic"
                                       ? 65278ull * 16 * 255 * 512
                                       : 0x1FC0000000u);
  ByteVector around(4 * kMiB);
  ASSERT_TRUE(driver->Read(76 * kMiB, around));
  ByteVector expected(4 * kMiB);
  std::ranges::copy(Pattern(1, 4096), expected.begin() + static_cast<ptrdiff_t>(at - 76 * kMiB));
  EXPECT_TRUE(around == expected);
  // QEMU, which does not look at sector bitmaps, sees no stale footer either.
  QemuWrite("s.vhd", "-c 'read -P 0 0 76M' -c 'read -P 0 76M 1M' -c 'read -P 0 78M 50M'");
  // All metadata but the one table entry is as it was.
  std::string after = dir_.Get("s.vhd");
  size_t changed = 0;
  for (size_t i = 0; i < 1536 + 65024 * 4; ++i) changed += before[i] != after[i];
  EXPECT_LE(changed, 4u);
}

INSTANTIATE_TEST_SUITE_P(Samples, VhdByOthers,
                         testing::Values("virtualpc-dynamic", "hyperv2012r2-dynamic"));

}  // namespace
}  // namespace imgfsck::vhd
