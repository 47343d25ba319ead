// SPDX-License-Identifier: Apache-2.0
// The repair passes of qcow2 images. Each is declared in repairer.cc with its place in the order of
// the format sheet: header, extensions, snapshot table, L1 and L2 structure, bitmaps, counts,
// COPIED, flags.
#pragma once

#include "repair/pass.h"
#include "repair/qcow2/editor.h"

namespace imgfsck::qcow2 {

extern const Pass kHeaderRebuildPass, kHeaderPass, kBackingNamePass, kExtensionPass, kSnapshotPass,
    kReservedBitsPass, kRelinkPass, kDropMappingsPass, kPastEndPass, kEncryptionPass, kBitmapPass,
    kStreamPass, kSplitPass, kRebuildPass, kCountPass, kLeakPass, kLostFoundPass, kCopiedPass,
    kAutoclearPass, kFlagPass;

// What a pass works with: a class of its own for each run.
class PassBody {
 protected:
  explicit PassBody(const PassContext& context)
      : context_(context),
        state_(StateOf(context.report)),
        image_(*state_.image),
        g_(image_.geometry),
        editor_(context.image, state_) {}

  bool May(Problem problem) const { return Allowed(problem, context_.options); }
  bool Should(Problem problem) const { return Mends(context_, problem); }

  const PassContext& context_;
  const CheckState& state_;
  const Image& image_;
  const Geometry& g_;
  Editor editor_;
  PassOutcome outcome_;
};

// Whether the lost-found pass shall make clusters with content reachable that nothing refers to.
bool KeepsInSnapshot(const PassContext& context);

// Mappings are lost or led astray that this repair leaves as they are: a count that is one too high
// may say where one of them belongs, and has to stay.
bool HighCountsAreEvidence(const PassContext& context);

// Calls visit for every distinct L2 table, as the overlay has it now; a visitor that changes the
// bytes sets *changed, and they are written back.
using TableVisitor =
    std::function<Status(const TableRef& table, MutableBytes bytes, bool* changed)>;
Status ForEachTable(Overlay& overlay, const CheckState& state, const TableVisitor& visit);

// The guest range of entry `index` of `table`, in every layer that uses the table.
void AddLayers(const CheckState& state, const TableRef& table, uint64_t index,
               std::vector<LayerRange>* ranges);

}  // namespace imgfsck::qcow2
