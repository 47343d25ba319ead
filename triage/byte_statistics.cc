// SPDX-License-Identifier: Apache-2.0
#include "triage/byte_statistics.h"

#include <array>
#include <cmath>

namespace imgfsck {
namespace {

constexpr size_t kFewBytes = 1024;  // too few to tell encrypted from compressed
// Chi-square with 255 degrees of freedom has a mean of 255 and a standard deviation of 22.6: four
// of them around it, and six.
constexpr double kLeast = 165, kMost = 345, kMostNearly = 390;

bool IsTextByte(size_t byte) {
  return byte == '\t' || byte == '\n' || byte == '\r' || (byte >= ' ' && byte < 0x7F);
}

}  // namespace

ByteStatistics StatisticsOf(Bytes bytes) {
  ByteStatistics statistics;
  if (bytes.empty()) return statistics;
  std::array<uint64_t, 256> counts{};
  for (uint8_t byte : bytes) ++counts[byte];
  const double total = static_cast<double>(bytes.size()), expected = total / 256;
  double text = 0;
  for (size_t byte = 0; byte < counts.size(); ++byte) {
    const double count = static_cast<double>(counts[byte]);
    statistics.chi_square += (count - expected) * (count - expected) / expected;
    if (IsTextByte(byte)) text += count;
    if (counts[byte] == 0) continue;
    const double share = count / total;
    statistics.entropy -= share * std::log2(share);
  }
  statistics.text = text / total;
  return statistics;
}

bool LooksEncrypted(const ByteStatistics& s, size_t size) {
  return size >= kFewBytes && s.chi_square > kLeast && s.chi_square < kMost;
}

bool NearlyLooksEncrypted(const ByteStatistics& s, size_t size) {
  return size >= kFewBytes && s.chi_square < kMostNearly;
}

bool LooksCompressed(const ByteStatistics& s, size_t size) {
  return size >= kFewBytes && s.entropy > 7.2;
}

}  // namespace imgfsck
