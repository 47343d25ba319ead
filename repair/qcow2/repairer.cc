// SPDX-License-Identifier: Apache-2.0
#include "repair/qcow2/repairer.h"

#include <array>

#include "repair/qcow2/passes.h"

namespace imgfsck {
namespace {

// A better header is known under which the guest's bytes are found elsewhere. Until it is written,
// whatever else a repair did would be done to the wrong mapping.
bool AwaitsHeader(const CheckReport& report) {
  const qcow2::CheckState& state = qcow2::StateOf(report);
  return state.reconstructed || (state.recovery != nullptr && state.recovery->remaps);
}

// A pass that has to wait until the header on disk is the one that the check went by.
template <const Pass& kPass>
Pass Below() {
  Pass pass = kPass;
  pass.wanted = [](const CheckReport& report, const RepairOptions& options) {
    return !AwaitsHeader(report) && kPass.wanted(report, options);
  };
  return pass;
}

// The sheet's order, but for one thing: a bitmap that was led onto somebody else's clusters gives
// way before those are split. A pass is a constant in its own file; here is only its turn.
std::span<const Pass> Passes() {
  static const std::array passes = {
      qcow2::kHeaderRebuildPass,        Below<qcow2::kHeaderPass>(),
      Below<qcow2::kBackingNamePass>(), Below<qcow2::kExtensionPass>(),
      Below<qcow2::kSnapshotPass>(),    Below<qcow2::kReservedBitsPass>(),
      Below<qcow2::kRelinkPass>(),      Below<qcow2::kDropMappingsPass>(),
      Below<qcow2::kPastEndPass>(),     Below<qcow2::kEncryptionPass>(),
      Below<qcow2::kBitmapPass>(),      Below<qcow2::kStreamPass>(),
      Below<qcow2::kSplitPass>(),       Below<qcow2::kRebuildPass>(),
      Below<qcow2::kCountPass>(),       Below<qcow2::kLeakPass>(),
      Below<qcow2::kLostFoundPass>(),   Below<qcow2::kCopiedPass>(),
      Below<qcow2::kAutoclearPass>(),   Below<qcow2::kFlagPass>()};
  return passes;
}

}  // namespace

const Repairer kQcow2Repairer{"qcow2", Passes(), nullptr, true};

}  // namespace imgfsck
