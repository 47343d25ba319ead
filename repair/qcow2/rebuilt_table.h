// SPDX-License-Identifier: Apache-2.0
// Puts one lost L2 table together again from everything that still knows a part of it: what is left
// of itself, older copies, the tables of other layers, a donor image, the order of the clusters.
// An entry is believed only where the cluster it leads to misses a reference.
#pragma once

#include <string>
#include <vector>

#include "repair/qcow2/lost_tables.h"

namespace imgfsck::qcow2 {

// Where entries of a rebuilt table come from.
struct Provenance {
  double confidence = 0;
  std::string evidence;
  friend bool operator==(const Provenance&, const Provenance&) = default;
};

struct RebuiltTable {
  // One an entry of the table; both empty while nothing was found.
  std::vector<Entry> entries;
  std::vector<uint32_t> from;  // 1 + number in `reasons`; 0: the entry was not found
  std::vector<Provenance> reasons;
  std::vector<bool> known;  // a copy says what the entry was, even if that was nothing
  uint64_t reclaimed = 0;
};

// A copy of the table, or of a part of it.
struct TableSource {
  ByteVector bytes;
  double confidence = 0;
  std::string evidence;
  bool complete = false;  // where it maps nothing, nothing was mapped
};

// Builds all lost tables side by side: first what copies say, then what only the order of the
// clusters says, since that is sure only once everything better has been taken.
class TableBuilder {
 public:
  TableBuilder(const ByteSource& image, const CheckState& state, Orphans* orphans)
      : bytes_(image),
        state_(state),
        image_(*state.image),
        g_(image_.geometry),
        orphans_(*orphans) {}

  // `donated`: for each lost table what a donor image has; may be empty. One result a lost table.
  std::vector<RebuiltTable> Build(const std::vector<LostTable>& lost,
                                  const std::vector<std::vector<TableSource>>& donated);

 private:
  struct Work {
    const LostTable* lost = nullptr;
    RebuiltTable* table = nullptr;
    std::vector<TableSource> sources;
    std::vector<Entry> elsewhere;  // what other layers map, when this table maps nothing there yet
    uint64_t limit = 0;            // entries of the column inside the disk
  };
  Work Begin(const LostTable& lost, const std::vector<TableSource>* donated, RebuiltTable* table);
  void TakeFromSources(Work* work);
  void TakeChanged(std::vector<Work>* works);
  void TakeInSequence(const Work& work);
  void TakeWhole(const Work& work);
  void Place(const Work& work, uint64_t index, uint64_t cluster, double confidence,
             std::string_view evidence);
  void Adopt(const Work& work, uint64_t index, Entry entry, const Provenance& from);
  void Reserve(RebuiltTable* table) const;
  std::optional<uint64_t> HostOf(const Work& work, int64_t index) const;

  const ByteSource& bytes_;
  const CheckState& state_;
  const Image& image_;
  const Geometry& g_;
  Orphans& orphans_;
};

}  // namespace imgfsck::qcow2
