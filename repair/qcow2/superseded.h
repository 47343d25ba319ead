// SPDX-License-Identifier: Apache-2.0
// What an unreferenced cluster holds, and whether it may be given back: only nothing at all, a byte
// for byte copy of a cluster in use, or an old table that the live ones repeat.
#pragma once

#include <unordered_map>
#include <vector>

#include "analyzers/qcow2/state.h"
#include "io/byte_source.h"

namespace imgfsck::qcow2 {

class OrphanJudge {
 public:
  OrphanJudge(const ByteSource& bytes, const CheckState& state);

  enum class Content { kEmpty, kSuperseded, kCopy, kValuable, kUnreadable };
  // kCopy is answered only for clusters given to FindCopies() before.
  Result<Content> Judge(uint64_t cluster);
  // Looks for live clusters equal to one of `orphans` (clusters), reading live data at most up to
  // `limit` bytes. Nothing is found beyond that.
  Status FindCopies(const std::vector<uint64_t>& orphans, uint64_t limit);

 private:
  bool OldRefcountBlock(Bytes content, uint64_t cluster) const;
  bool OldRefcountTable(Bytes content, uint64_t cluster) const;
  bool OldL2Table(Bytes content);
  bool OldL1Table(Bytes content) const;
  void LearnLiveEntries();

  const ByteSource& bytes_;
  const CheckState& state_;
  const Image& image_;
  bool learnt_ = false;
  // Live L2 tables by the host cluster of their first mapped entry, to compare old ones with.
  std::unordered_map<uint64_t, std::vector<uint64_t>> tables_by_first_;
  std::unordered_map<uint64_t, bool> copies_;
};

}  // namespace imgfsck::qcow2
