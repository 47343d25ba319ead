// SPDX-License-Identifier: Apache-2.0
#include "tools/imgfsck/names.h"

#include <algorithm>

#include "base/checked.h"

namespace imgfsck {
namespace {

constexpr size_t kMostNamedLayers = 8;    // snapshots whose files are looked up
constexpr uint64_t kFarthest = 1 * kMiB;  // in the file, from unclaimed bytes to what lies beside
constexpr uint64_t kPiece = 4 * kKiB;     // of a neighbour that is looked up

using RangesByLayer = std::map<std::string, std::vector<GuestRange>>;

// Ranges of the file that belong to nothing, and what lies nearest to each.
class NeighbourSearch {
 public:
  explicit NeighbourSearch(const std::vector<Finding>& findings) {
    for (const Finding& finding : findings) {
      if (finding.host && !finding.guest && finding.severity_or_default() == Severity::kLeak) {
        places_.push_back({finding.host->offset.value, finding.host->end(), {}, 0, 0});
      }
    }
    std::ranges::sort(places_, {}, &Place::begin);
  }

  void Look(const ImageRows& rows) {
    if (places_.empty()) return;
    RowQuery query;
    query.layer = kActiveLayer;
    auto cursor = rows.Mappings(query);
    std::vector<MappingRow> batch;
    while (cursor != nullptr && cursor->NextBatch(&batch) && !batch.empty()) {
      for (const MappingRow& row : batch) {
        const bool here = row.state == MappingState::kData && row.host_offset &&
                          (row.flags & kMappingDataFile) == 0;
        if (here) Offer(*row.host_offset, row.guest_offset, row.length);
      }
    }
  }

  std::map<uint64_t, Neighbours> Take() const {
    std::map<uint64_t, Neighbours> found;
    for (const Place& place : places_) {
      if (place.beside.before || place.beside.after) found.emplace(place.begin, place.beside);
    }
    return found;
  }

 private:
  struct Place {
    uint64_t begin, end;
    Neighbours beside;
    uint64_t before_distance, after_distance;
  };

  void Offer(uint64_t host, uint64_t guest, uint64_t length) {
    const uint64_t end = SaturatingAdd(host, length);
    // Unclaimed places whose neighbour this may be begin between these two.
    auto at =
        std::ranges::lower_bound(places_, host - std::min(host, 16 * kFarthest), {}, &Place::begin);
    for (; at != places_.end() && at->begin <= SaturatingAdd(end, kFarthest); ++at) {
      if (end <= at->begin && at->begin - end <= kFarthest) {
        const uint64_t distance = at->begin - end;
        if (at->beside.before && at->before_distance <= distance) continue;
        const uint64_t piece = std::min(length, kPiece);
        at->beside.before = MakeGuestRange(guest + length - piece, piece);
        at->before_distance = distance;
      } else if (host >= at->end && host - at->end <= kFarthest) {
        const uint64_t distance = host - at->end;
        if (at->beside.after && at->after_distance <= distance) continue;
        at->beside.after = MakeGuestRange(guest, std::min(length, kPiece));
        at->after_distance = distance;
      }
    }
  }

  std::vector<Place> places_;  // ascending
};

std::string LayerOf(const std::string& layer) {
  return layer.empty() ? std::string(kActiveLayer) : layer;
}

RangesByLayer WantedRanges(const std::vector<Finding>& findings, const ImageResult& result) {
  RangesByLayer wanted;
  auto add = [&](const std::string& layer, const std::optional<GuestRange>& range) {
    if (range) wanted[LayerOf(layer)].push_back(*range);
  };
  for (const Finding& finding : findings) {
    if (finding.severity_or_default() == Severity::kInfo) continue;
    add(finding.layer, finding.guest);
    for (const Claimant& other : finding.also) add(other.layer, other.guest);
  }
  if (result.repair) {
    for (const LostRange& range : result.repair->lost) add(range.layer, range.guest);
  }
  return wanted;
}

}  // namespace

GuestNames NamesFor(const ImageResult& result, const ImgfsckOptions& options, NameServer& server) {
  GuestNames names;
  const CheckResult* check = FinalCheck(result);
  if (check == nullptr) return names;
  const std::vector<Finding> findings = FindingsToList(result);
  RangesByLayer wanted = WantedRanges(findings, result);
  const bool bitmaps = check->rows != nullptr && !check->rows->Bitmaps().empty();
  if (check->rows != nullptr) {
    NeighbourSearch search(findings);
    search.Look(*check->rows);
    names.neighbours = search.Take();
    for (const auto& [host, beside] : names.neighbours) {
      for (const auto& range : {beside.before, beside.after}) {
        if (range) wanted[std::string(kActiveLayer)].push_back(*range);
      }
    }
  }
  if (bitmaps) wanted.try_emplace(std::string(kActiveLayer));
  for (auto& [layer, ranges] : wanted) {
    if (names.layers.size() >= kMostNamedLayers) {
      names.layers[layer].trouble = "too many snapshots are concerned";
      continue;
    }
    NameRequest request;
    request.path = result.path;
    request.format = options.format;
    request.passphrase = options.repair_options.check.passphrase;
    request.follow = options.repair_options.check.chain;
    request.query.ranges = std::move(ranges);
    if (layer == kActiveLayer) {
      request.bitmaps = bitmaps;
    } else {
      request.snapshot = layer;
    }
    names.layers[layer] = server.Ask(std::move(request));
  }
  return names;
}

}  // namespace imgfsck
