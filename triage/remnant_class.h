// SPDX-License-Identifier: Apache-2.0
// What a piece of unclaimed bytes seems to be.
#pragma once

#include <string>

#include "io/byte_source.h"
#include "triage/facts.h"

namespace imgfsck {

struct PieceClass {
  RemnantClass kind = RemnantClass::kData;
  std::string what;    // "l2 table", "SQLite database" …; may be empty
  double entropy = 0;  // bits a byte
  friend bool operator==(const PieceClass&, const PieceClass&) = default;
};

// Knows the shapes of tables of one image.
class PieceClassifier {
 public:
  // `cluster_size` 0: no tables are looked for.
  PieceClassifier(const ByteSource& file, std::string_view format, uint64_t cluster_size);
  // `offset`: of the piece in the file.
  PieceClass Classify(uint64_t offset, Bytes piece) const;

 private:
  bool LooksLikeMapping(Bytes piece, size_t least) const;
  bool LooksLikeL1(Bytes piece) const;
  static bool LooksLikeCounts(Bytes piece);
  // What table begins there; empty: none that is known.
  std::string TableAt(uint64_t offset, Bytes piece) const;
  std::string SnapshotTable(uint64_t offset) const;
  std::string BitmapDirectory(Bytes piece) const;

  const ByteSource& file_;
  bool qcow2_;
  uint64_t cluster_size_;
};

}  // namespace imgfsck
