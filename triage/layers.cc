// SPDX-License-Identifier: Apache-2.0
#include "triage/layers.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"

namespace imgfsck {
namespace {

Error Broken(const ChainEdge& edge, std::string_view why) {
  return {ErrorCode::kNotFound,
          fmt::format("the {} \"{}\" {}", edge.kind, Printable(edge.names.front()), why),
          {}};
}

// Whether what the link leads to can be read as what the child means.
Status CheckEdge(const ChainEdge& edge) {
  auto has = [&](LinkTrouble trouble) {
    return std::ranges::find(edge.troubles, trouble) != edge.troubles.end();
  };
  if (edge.state == LinkState::kAmbiguous) return Broken(edge, "is found several times");
  if (edge.state == LinkState::kNotAFile) return Broken(edge, "is no file");
  if (edge.state != LinkState::kFound) return Broken(edge, "is not among the files examined");
  if (has(LinkTrouble::kIdMismatch)) return Broken(edge, "is another disk");
  if (has(LinkTrouble::kCycle)) return Broken(edge, "comes back to the image itself");
  return Ok();
}

}  // namespace

Result<std::vector<FoundLayer>> LayersOf(const TriageResult& result, size_t index) {
  std::vector<FoundLayer> layers;
  std::optional<size_t> at = index;
  std::string format = result.files[index].facts.identity.format;
  while (at) {
    const TriagedFile& file = result.files[*at];
    if (layers.size() >= kMostLayers) {
      return Error{ErrorCode::kTooLarge, "too many backing files", {}};
    }
    FoundLayer layer{{file.file.path, format, ""}, file.file.identity, file.file.block_device};
    std::optional<size_t> next;
    std::string next_format;
    const bool as_is = format == "raw";  // whatever it may look like
    for (size_t e : result.chain.edges_of[*at]) {
      const ChainEdge& edge = result.chain.edges[e];
      if (as_is) break;
      IMG_RETURN_IF_ERROR(CheckEdge(edge));
      const TriagedFile& target = result.files[*edge.parent];
      if (edge.kind == "data-file") {
        layer.file.data_path = target.file.path;
        continue;
      }
      next = edge.parent;
      next_format = edge.format.empty() ? target.facts.identity.format : edge.format;
      if (next_format.empty()) next_format = "raw";
    }
    layers.push_back(std::move(layer));
    at = next;
    format = next_format;
  }
  return layers;
}

Result<std::unique_ptr<Chain>> OpenLayers(const std::vector<FoundLayer>& layers,
                                          const std::string& snapshot) {
  std::vector<ChainFile> files;
  for (const FoundLayer& layer : layers) files.push_back(layer.file);
  ChainOptions options;
  options.snapshot = snapshot;
  IMG_ASSIGN_OR_RETURN(auto chain, Chain::OpenFiles(files, options));
  // A link that the graph does not know, such as a name that cannot be read.
  if (chain->layers().back()->driver->Backing()) {
    return Error{ErrorCode::kNotFound, "it needs a backing file that cannot be told", {}};
  }
  for (size_t i = 0; i < layers.size(); ++i) {
    IMG_ASSIGN_OR_RETURN(FileIdentity now, chain->layers()[i]->source->Identity());
    if (layers[i].block_device) now.size = layers[i].identity.size;
    if (now == layers[i].identity) continue;
    return Error{
        ErrorCode::kConflict, Printable(layers[i].file.path) + " changed since it was found", {}};
  }
  return chain;
}

}  // namespace imgfsck
