// SPDX-License-Identifier: Apache-2.0
// How random bytes look.
#pragma once

#include "base/bytes.h"

namespace imgfsck {

struct ByteStatistics {
  double entropy = 0;     // bits a byte, 0 to 8
  double chi_square = 0;  // against even distribution; random bytes: 255, give or take 23
  double text = 0;        // share of bytes that text is made of, 0 to 1
};
ByteStatistics StatisticsOf(Bytes bytes);

// As encrypted bytes look. Deflated ones fail from some 64 KiB on, most of them at less; what LZMA
// packs cannot be told from encrypted bytes.
bool LooksEncrypted(const ByteStatistics& statistics, size_t size);
// The few encrypted pieces that fail, and many that are compressed.
bool NearlyLooksEncrypted(const ByteStatistics& statistics, size_t size);
bool LooksCompressed(const ByteStatistics& statistics, size_t size);

}  // namespace imgfsck
