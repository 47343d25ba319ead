// SPDX-License-Identifier: Apache-2.0
// Evidence about the encryption of an image whose header contradicts itself, gathered without the
// key: where the LUKS header is, and whether the data is encrypted at all.
#pragma once

#include <optional>

#include "analyzers/qcow2/state.h"
#include "io/overlay.h"

namespace imgfsck::qcow2 {

// The LUKS header at `offset`: every field plausible, its key area inside the file.
std::optional<LuksHeader> PlausibleLuks(const ByteSource& bytes, const Image& image,
                                        uint64_t offset);
// The image is LUKS encrypted, and nobody knows where its LUKS header is: unreferenced clusters may
// be that, zeros among them its free key slots.
bool LuksLost(const Image& image);
// The offset of the one LUKS header that nothing but an encryption extension refers to; looked for
// where `hint` says and in clusters that are counted and unused.
std::optional<uint64_t> FindLuks(const ByteSource& bytes, const CheckState& state,
                                 std::optional<uint64_t> hint);
// Data in the mapped clusters that no encryption of qcow2 can have produced: text, or equal sectors
// at different places of one cluster.
Result<bool> ProvenPlain(Overlay& image, const CheckState& state);

}  // namespace imgfsck::qcow2
