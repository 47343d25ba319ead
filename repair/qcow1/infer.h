// SPDX-License-Identifier: Apache-2.0
// Works header fields out from what else the file holds: the tables, their distances, the look of
// the data. Reads only; every answer is nothing where the evidence does not decide.
#pragma once

#include <optional>

#include "formats/qcow1/image.h"

namespace imgfsck::qcow1 {

// How well a header explains the file.
struct Fit {
  uint64_t good = 0;       // sound L2 entries seen
  uint64_t wrong = 0;      // L1 and L2 entries that make no sense under it
  unsigned alignment = 0;  // power of two that all tables and clusters seen are aligned to
  bool sound() const { return good > 0 && wrong * 32 <= good; }
};
Result<Fit> FitOf(const ByteSource& source, const Header& header);

// cluster_bits and l2_bits, each only where it is damaged.
Result<std::optional<Header>> InferGeometry(const ByteSource& source, const Header& header);
// The end of the last cluster that is mapped; nothing when no table is found.
Result<std::optional<uint64_t>> InferSize(const ByteSource& source, const Header& header);
// Where the L1 table begins.
Result<std::optional<uint64_t>> InferL1Offset(const ByteSource& source, const Header& header);
// crypt_method by the look of the data.
Result<uint32_t> InferCrypt(const ByteSource& source, const Header& header);

}  // namespace imgfsck::qcow1
