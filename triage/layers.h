// SPDX-License-Identifier: Apache-2.0
// The disk that a guest sees, put together from files of the inventory as the chain graph links
// them. No name from an image is followed: what the inventory does not have is not opened.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "chain/chain.h"
#include "triage/result.h"

namespace imgfsck {

// One file of a chain and the state in which the inventory found it.
struct FoundLayer {
  ChainFile file;
  FileIdentity identity;
  bool block_device = false;
};

// The files that make up the disk of file `index`, itself first. kNotFound, with a sentence, where
// one is missing, ambiguous or not the disk that it should be.
Result<std::vector<FoundLayer>> LayersOf(const TriageResult& result, size_t index);

// kConflict when a file is not the one that was found any more.
Result<std::unique_ptr<Chain>> OpenLayers(const std::vector<FoundLayer>& layers,
                                          const std::string& snapshot = "");

}  // namespace imgfsck
