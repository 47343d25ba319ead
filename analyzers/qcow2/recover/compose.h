// SPDX-License-Identifier: Apache-2.0
// Puts a header together: what the tables show, what can still be believed of the stored header,
// and what was found beside them. Reads the stored first cluster, writes nothing.
#pragma once

#include <optional>

#include "analyzers/qcow2/recover/trial.h"

namespace imgfsck::qcow2 {

// Tables that a header names beside L1 and refcount table, as a search found them.
struct SideTables {
  uint64_t snapshots_offset = 0;
  uint32_t nb_snapshots = 0;
  std::optional<ByteVector> bitmaps, encryption;  // extension data
};

class Composer {
 public:
  // `stored`: parsed from `source` as it is.
  Composer(const ByteSource& source, const Image& stored);

  const Header& stored() const { return header_; }
  // Enough of the stored header agrees with `layout` for the rest of it to be believed.
  bool Trusts(const Layout& layout) const;
  // Version 3 fields (from byte 72 on) that make sense together.
  bool HasVersion3Fields() const { return version3_; }

  struct Wish {
    Layout layout;
    uint64_t size = 0;                 // of the disk; 0: as stored, else what the L1 table maps
    const SideTables* side = nullptr;  // null: as stored where that is believed, else none
    bool compressed_zstd = false;      // only where the stored header is not believed
  };
  // The bytes that the file's beginning should have, and the header in them.
  ByteVector Compose(const Wish& wish, Header* header) const;

 private:
  Header Believed(const Wish& wish) const;
  bool KeepsExtensions(const Layout& layout) const;

  Header header_;     // as stored
  ByteVector first_;  // as much of the first cluster as may matter
  bool version3_ = false;
};

}  // namespace imgfsck::qcow2
