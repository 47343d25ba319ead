// SPDX-License-Identifier: Apache-2.0
#include "model/lost_ranges.h"

#include <algorithm>
#include <map>

namespace imgfsck {
namespace {

// A judgement no better than a guess: any of the claimants may be the one whose bytes are wrong.
constexpr double kGuess = 0.5;

// Without its backing file the image is not opened, whatever the severity.
bool ConcernsBacking(Problem problem) {
  return problem == Problem::kQcow2BackingMissing || problem == Problem::kChainMissing ||
         problem == Problem::kChainFormatMismatch;
}

class Collector {
 public:
  Collector(const ImageRows* rows, uint64_t virtual_size) : rows_(rows) {
    sizes_.emplace(kActiveLayer, virtual_size);
    if (rows == nullptr) return;
    for (const SnapshotRow& s : rows->Snapshots()) sizes_.try_emplace(s.id, s.virtual_size);
  }

  void Add(const Finding& finding) {
    const Effect effect = finding.effect_or_default();
    if (effect == Effect::kNone) return;
    // A bitmap's range says what it covers; what QEMU refuses for its sake is the whole image.
    const bool exact = finding.guest && !finding.structure.starts_with("bitmap[");
    const bool no_name = finding.problem == Problem::kQcow2BackingOffset ||
                         finding.problem == Problem::kQcow2BackingSize;
    if (exact) {
      AddExact(finding, effect);
    } else if (no_name && effect == Effect::kZero) {
      AddUnallocated(effect);
    } else if (finding.severity_or_default() == Severity::kCorruption ||
               ConcernsBacking(finding.problem)) {
      AddWhole(finding.layer, effect);
    }
  }

  std::vector<LostPiece> Take() { return std::move(pieces_); }

 private:
  void AddExact(const Finding& finding, Effect effect) {
    const std::string layer = finding.layer.empty() ? std::string(kActiveLayer) : finding.layer;
    Put(layer, *finding.guest, effect);
    const bool guess = effect == Effect::kWrong && finding.confidence <= kGuess;
    for (const Claimant& other : finding.also) {
      // The same table in another layer, or somebody who may be the one that is wrong.
      const bool twin = other.guest == finding.guest && other.layer != layer;
      if (other.guest && !other.layer.empty() && (guess || twin)) {
        Put(other.layer, *other.guest, effect);
      }
    }
  }

  void AddWhole(const std::string& layer, Effect effect) {
    for (const auto& [name, size] : sizes_) {
      if (layer.empty() || layer == name) Put(name, MakeGuestRange(0, size), effect, true);
    }
  }

  // What the active disk has not of its own.
  void AddUnallocated(Effect effect) {
    RowQuery query;
    query.layer = std::string(kActiveLayer);
    const auto cursor = rows_ == nullptr ? nullptr : rows_->Mappings(query);
    std::vector<MappingRow> batch;
    while (cursor != nullptr) {
      if (!cursor->NextBatch(&batch)) break;
      if (batch.empty()) return;
      for (const MappingRow& row : batch) {
        if (row.layer != kActiveLayer || row.state != MappingState::kUnallocated) continue;
        Put(std::string(kActiveLayer), MakeGuestRange(row.guest_offset, row.length), effect);
      }
    }
    AddWhole(std::string(kActiveLayer), effect);
  }

  void Put(const std::string& layer, GuestRange guest, Effect effect, bool whole = false) {
    if (layer == kActiveLayer) {  // VM states lie behind a snapshot's disk
      const uint64_t size = sizes_.find(layer)->second;
      if (guest.offset.value >= size) return;
      guest.length = std::min(guest.length, size - guest.offset.value);
    }
    if (guest.length > 0) pieces_.push_back({layer, guest, effect, whole});
  }

  const ImageRows* rows_;
  std::map<std::string, uint64_t, std::less<>> sizes_;  // of disks, by layer
  std::vector<LostPiece> pieces_;
};

}  // namespace

std::vector<LostPiece> LostPieces(const Findings& findings, const ImageRows* rows,
                                  uint64_t virtual_size) {
  Collector collector(rows, virtual_size);
  for (const Finding& finding : findings.kept()) collector.Add(finding);
  return collector.Take();
}

bool LostPiecesIncomplete(const Findings& findings) {
  return std::ranges::any_of(findings.totals(), [](const auto& total) {
    return total.second.dropped > 0 && InfoOf(total.first).effect != Effect::kNone;
  });
}

}  // namespace imgfsck
