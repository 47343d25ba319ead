// SPDX-License-Identifier: Apache-2.0
// Ideas of how a file is laid out, from the stored header and from a scan, each with what a quick
// look says of it.
#pragma once

#include <optional>
#include <vector>

#include "analyzers/qcow2/recover/lens.h"
#include "analyzers/qcow2/recover/scan.h"
#include "formats/qcow2/image.h"

namespace imgfsck::qcow2 {

struct Candidate {
  Layout layout;
  Look tree;
  MapLook map;
  double Worth() const {
    uint64_t asked = tree.asked + map.table.asked + map.below.asked;
    uint64_t held = tree.held + map.table.held + map.below.held;
    return static_cast<double>(held) - 2 * static_cast<double>(asked - held);
  }
};

// Layouts whose refcount structures count themselves (no L1 fields yet). With `scan`: also of
// tables that only a search finds.
std::vector<Candidate> FindTrees(Lens& lens, const Image& stored, const ScanResult* scan);

// The stored L1 table below each tree; below none where there are no trees. Best first.
Result<std::vector<Candidate>> StoredMaps(Lens& lens, const Image& stored,
                                          const std::vector<Candidate>& trees);

// L1 tables that the scan shows, below each tree or below none. Best first.
Result<std::vector<Candidate>> ScannedMaps(Lens& lens, const Image& stored, const ScanResult& scan,
                                           const std::vector<Candidate>& trees);

}  // namespace imgfsck::qcow2
