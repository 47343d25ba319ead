// SPDX-License-Identifier: Apache-2.0
// Lays out a new, empty qcow version 1 image (sheet qcow1, section 3).
#pragma once

#include <span>

#include "formats/format.h"

namespace imgfsck::qcow1 {

// Without a backing file 4 KiB clusters, with one 512-byte clusters, as QEMU does (its writers lose
// data of the backing file when clusters are larger), unless the options say otherwise.
Status Create(ByteStore& store, uint64_t virtual_size, const CreateOptions& options);
std::span<const OptionHelp> CreateOptionHelp();

}  // namespace imgfsck::qcow1
