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
  // Those whose top table is lost for good, or that may not be there at all.
  Status DropHopeless();

 private:
  bool Should(Problem problem) const {
    return context_.report.findings.Has(problem) && Allowed(problem, context_.options);
  }
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
