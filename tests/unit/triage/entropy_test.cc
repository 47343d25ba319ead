// SPDX-License-Identifier: Apache-2.0
#include "triage/entropy.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <random>

#include "io/byte_source.h"
#include "triage/byte_statistics.h"

namespace imgfsck {
namespace {

constexpr uint64_t kBlock = 64 * kKiB;

ByteVector Random(size_t size, unsigned seed) {
  std::mt19937 random(seed);
  ByteVector bytes(size);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  return bytes;
}

ByteVector Prose(size_t size) {
  std::mt19937 random(5);
  ByteVector bytes;
  while (bytes.size() < size) {
    for (char c : std::to_string(random()) + " bottles\n") bytes.push_back(static_cast<uint8_t>(c));
  }
  bytes.resize(size);
  return bytes;
}

// A file of blocks: 'r' encrypted, 't' text, '0' zeros.
MemoryStore FileOf(std::string_view looks) {
  ByteVector bytes;
  unsigned seed = 1;
  for (char look : looks) {
    ByteVector block = look == 'r'   ? Random(kBlock, seed++)
                       : look == 't' ? Prose(kBlock)
                                     : ByteVector(kBlock);
    bytes.insert(bytes.end(), block.begin(), block.end());
  }
  return MemoryStore(std::move(bytes));
}

std::string Times(std::string_view text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

TEST(ByteStatistics, EncryptedCompressedAndTextAreToldApart) {
  int encrypted = 0;
  for (unsigned seed = 0; seed < 200; ++seed) {
    const ByteVector bytes = Random(seed % 2 == 0 ? 4096 : kBlock, seed);
    if (LooksEncrypted(StatisticsOf(bytes), bytes.size())) ++encrypted;
  }
  EXPECT_GE(encrypted, 198);
  const ByteVector text = Prose(3 * kMiB);
  EXPECT_GT(StatisticsOf(text).text, 0.99);
  EXPECT_FALSE(LooksCompressed(StatisticsOf(text), text.size()));
  ByteVector packed(compressBound(text.size()));
  uLongf size = packed.size();
  ASSERT_EQ(compress2(packed.data(), &size, text.data(), text.size(), 9), Z_OK);
  packed.resize(size);
  int called_encrypted = 0, pieces = 0;
  for (size_t at = 0; at + kBlock <= packed.size(); at += kBlock, ++pieces) {
    const Bytes piece = Bytes(packed).subspan(at, kBlock);
    EXPECT_TRUE(LooksCompressed(StatisticsOf(piece), piece.size()));
    if (LooksEncrypted(StatisticsOf(piece), piece.size())) ++called_encrypted;
  }
  ASSERT_GT(pieces, 10);
  EXPECT_EQ(called_encrypted, 0);
}

TEST(ByteStatistics, FewBytesSayNothing) {
  EXPECT_EQ(StatisticsOf({}).entropy, 0);
  const ByteVector bytes = Random(512, 1);
  EXPECT_FALSE(LooksEncrypted(StatisticsOf(bytes), bytes.size()));
}

TEST(Entropy, HeadTailAndWhatIsLeft) {
  const EntropyFacts facts = *ProfileEntropy(FileOf("rrrrrtt00trrrr"), nullptr);
  EXPECT_EQ(facts.head, 5 * kBlock);
  EXPECT_EQ(facts.tail, 4 * kBlock);
  EXPECT_EQ(facts.random_bytes, 9 * kBlock);
  EXPECT_EQ(facts.plain_bytes, 3 * kBlock);
  EXPECT_EQ(facts.zero_bytes, 2 * kBlock);
  EXPECT_EQ(facts.plan_repeats, 0u);
}

TEST(Entropy, APlanIsItsPeriod) {
  const EntropyFacts facts = *ProfileEntropy(FileOf("tt" + Times("rrtttttt", 8)), nullptr);
  EXPECT_EQ(facts.plan_on, 2 * kBlock);
  EXPECT_EQ(facts.plan_off, 6 * kBlock);
  EXPECT_EQ(facts.plan_begin, 2 * kBlock);
  EXPECT_EQ(facts.plan_repeats, 8u);
  EXPECT_EQ(facts.plan_end, (2 + 7 * 8 + 2) * kBlock);
}

TEST(Entropy, NoPlanInWhatIsPlainOrAllRandomOrAnyhow) {
  EXPECT_EQ(ProfileEntropy(FileOf(Times("t", 40)), nullptr)->plan_repeats, 0u);
  EXPECT_EQ(ProfileEntropy(FileOf(Times("r", 40)), nullptr)->plan_repeats, 0u);
  EXPECT_EQ(ProfileEntropy(FileOf("rtrrrttttrttrrrrrrtttttttttttrrtrrrrrtttttrrr"), nullptr)
                ->plan_repeats,
            0u);
}

TEST(Entropy, EmptyAndShortFiles) {
  EXPECT_TRUE(ProfileEntropy(MemoryStore(ByteVector()), nullptr)->done);
  const EntropyFacts facts = *ProfileEntropy(MemoryStore(Prose(700)), nullptr);
  EXPECT_EQ(facts.plain_bytes, 700u);
}

// Says of itself how large it is.
class VastSource : public MemoryStore {
 public:
  uint64_t Size() const override { return 64 * kTiB + 1; }
};

TEST(Entropy, AFileThatIsTooLargeIsSaidToBe) {
  const auto facts = ProfileEntropy(VastSource(), nullptr);
  ASSERT_TRUE(facts);
  EXPECT_FALSE(facts->done);
  EXPECT_NE(facts->trouble.find("64 TiB"), std::string::npos) << facts->trouble;
}

}  // namespace
}  // namespace imgfsck
