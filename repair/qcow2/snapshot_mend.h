// SPDX-License-Identifier: Apache-2.0
// Mends single entries of the snapshot table: what their fields must be follows from the entry and
// from the tables that it names. Entries that nothing can make sense of are dropped.
#pragma once

#include <vector>

#include "repair/qcow2/passes.h"

namespace imgfsck::qcow2 {

class SnapshotMender {
 public:
  // `entries`: as the image has them, or with others behind those; changed in place.
  SnapshotMender(const PassContext& context, Editor* editor, std::vector<Snapshot>* entries,
                 PassOutcome* outcome);

  void MendFields();
  void MendIds();
  // Where the top table of snapshot `index` lies: by itself, exactly on another top table, or on
  // something else that the header leads to.
  enum class TablePlace { kOwn, kShared, kForeign };
  TablePlace Place(size_t index) const;
  // A snapshot that uses the top table of the disk, or of an earlier snapshot, gets a copy of it.
  Status OwnTables();
  // Those whose top table is lost for good, or that may not be there at all.
  Status DropHopeless();

 private:
  bool Should(Problem problem) const { return Mends(context_, problem); }
  bool MendL1Size(size_t index);
  bool MendText(Snapshot* snapshot);
  bool CanExtend(size_t index, uint64_t needed) const;
  void DeclareLayer(size_t index, bool lost);
  Status GiveBack(size_t index);

  const PassContext& context_;
  const CheckState& state_;
  const Image& image_;
  Editor& editor_;
  std::vector<Snapshot>& entries_;
  PassOutcome& outcome_;
};

}  // namespace imgfsck::qcow2
