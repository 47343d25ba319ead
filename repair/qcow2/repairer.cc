// SPDX-License-Identifier: Apache-2.0
#include "repair/qcow2/repairer.h"

#include <array>

#include "repair/qcow2/passes.h"

namespace imgfsck {
namespace {

// The sheet's order, but for one thing: a bitmap that was led onto somebody else's clusters gives
// way before those are split. A pass is a constant in its own file; here is only its turn.
std::span<const Pass> Passes() {
  static const std::array passes = {
      qcow2::kHeaderPass,       qcow2::kBackingNamePass,  qcow2::kExtensionPass,
      qcow2::kSnapshotPass,     qcow2::kReservedBitsPass, qcow2::kRelinkPass,
      qcow2::kDropMappingsPass, qcow2::kPastEndPass,      qcow2::kEncryptionPass,
      qcow2::kBitmapPass,       qcow2::kSplitPass,        qcow2::kRebuildPass,
      qcow2::kCountPass,        qcow2::kLeakPass,         qcow2::kLostFoundPass,
      qcow2::kCopiedPass,       qcow2::kAutoclearPass,    qcow2::kFlagPass};
  return passes;
}

}  // namespace

const Repairer kQcow2Repairer{"qcow2", Passes(), nullptr, true};

}  // namespace imgfsck
