// SPDX-License-Identifier: Apache-2.0
// How the files of one run belong together: backing files, parents and data files, found among the
// files of the inventory by path, by id, by what a child recorded of its base, or by name. Only
// what the inventory has is compared; no name from an image is looked up anywhere.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "triage/facts.h"
#include "triage/inventory.h"

namespace imgfsck {

enum class LinkState : uint8_t {
  kFound,
  kMissing,    // no file of the inventory fits
  kAmbiguous,  // several do
  kNotAFile,   // a protocol, a description, another machine
};
std::string_view ToText(LinkState state);  // "found" …

enum class FoundBy : uint8_t { kPath, kId, kContent, kName };
std::string_view ToText(FoundBy by);  // "path" …

// What is wrong with a link.
enum class LinkTrouble : uint8_t {
  kMoved,           // found, but not where its name says
  kIdMismatch,      // the file at that place is another disk
  kFormatMismatch,  // it is not of the format that the child expects
  kShorter,         // than the child's disk
  kNewer,           // changed after the child was last written
  kEdited,          // changed since the child was made, by the time that the child recorded
  kCycle,
};
std::string_view ToText(LinkTrouble trouble);  // "moved" …

struct ChainEdge {
  size_t child = 0;                // index of the file
  std::string kind;                // "backing", "parent", "data-file"
  std::vector<std::string> names;  // as the image has them: untrusted
  std::string format;              // "" when the child does not say
  LinkState state = LinkState::kMissing;
  FoundBy by = FoundBy::kPath;     // meaningful when found
  std::optional<size_t> parent;    // when found
  std::vector<size_t> candidates;  // when ambiguous
  std::vector<LinkTrouble> troubles;
};

struct ChainGraph {
  std::vector<ChainEdge> edges;               // by child, then kind
  std::vector<std::vector<size_t>> edges_of;  // of each file: indices into `edges`
  std::vector<std::vector<size_t>> children;  // of each file: those that build on it, ascending
};

// A file and what is known of it.
struct ChainMember {
  const FoundFile* file = nullptr;
  const ImageFacts* facts = nullptr;
};
ChainGraph LinkChains(const std::vector<ChainMember>& members);

}  // namespace imgfsck
