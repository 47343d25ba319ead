// SPDX-License-Identifier: Apache-2.0
#include "repair/qcow2/strays.h"

#include <algorithm>
#include <optional>
#include <tuple>
#include <unordered_set>

#include "analyzers/qcow2/conflicts.h"
#include "analyzers/qcow2/entry_rules.h"
#include "analyzers/qcow2/evidence.h"
#include "repair/qcow2/lost_tables.h"
#include "repair/qcow2/passes.h"
#include "repair/qcow2/sequence.h"

namespace imgfsck::qcow2 {
namespace {

constexpr size_t kMostAtOnce = 1 << 13;  // broken entries matched by their number alone

class Strays {
 public:
  Strays(Overlay& overlay, const CheckState& state, const Donor& donor, bool loose,
         Orphans* orphans, std::vector<Restored>* restored)
      : overlay_(overlay),
        state_(state),
        image_(*state.image),
        g_(image_.geometry),
        claims_(state.claims()),
        donor_(donor),
        loose_(loose),
        orphans_(*orphans),
        restored_(*restored) {}

  Status Run() {
    IMG_RETURN_IF_ERROR(ForEachTable(overlay_, state_,
                                     [&](const TableRef& table, MutableBytes bytes, bool* changed) {
                                       return Mend(table, bytes, changed);
                                     }));
    return TheOnlyOnes();
  }

 private:
  // What an entry is to this search.
  enum class Kind : uint8_t { kSound, kOther, kEmpty, kBroken, kContested };

  Kind KindOf(const Entry& entry) const {
    // Only an exact zero: QEMU marks what it zeroes, and what it discards above a backing file.
    if (entry.empty()) return Kind::kEmpty;
    if (IsCutOff(entry)) return Kind::kOther;
    if (entry.compressed()) {
      return EntryInvalid(image_, entry) ? Kind::kBroken : Kind::kOther;
    }
    uint64_t host = entry.host();
    if (host == 0) {
      bool lost = entry.copied() || (g_.extended_l2 && entry.alloc_bits() != 0);
      return lost ? Kind::kBroken : Kind::kOther;
    }
    if (!IsAligned(host, g_.cluster_size) || host >= image_.file_size) return Kind::kBroken;
    return claims_.IsConflict(host >> g_.cluster_bits) ? Kind::kContested : Kind::kSound;
  }

  // It leads behind the end of the file, to a cluster that is counted: what it led to was cut off
  // with the end, and is none of the clusters without an owner.
  bool IsCutOff(const Entry& entry) const {
    uint64_t host = entry.host();
    if (entry.compressed()) {
      host = AlignDown(DecodeCompressed(g_, entry.descriptor).offset, g_.cluster_size);
    }
    return host >= image_.file_size && IsAligned(host, g_.cluster_size) &&
           StoredCount(image_, host >> g_.cluster_bits) > 0;
  }

  std::optional<uint64_t> SoundHost(Bytes bytes, int64_t index) const {
    if (index < 0 || index >= static_cast<int64_t>(g_.l2_entries)) return std::nullopt;
    Entry entry = LoadEntry(g_, bytes, static_cast<uint64_t>(index));
    if (KindOf(entry) != Kind::kSound) return std::nullopt;
    return entry.host() >> g_.cluster_bits;
  }

  // The neighbours of entries [begin, end), also across the table's edge.
  SequenceRun RunOf(const TableRef& table, Bytes bytes, uint64_t begin, uint64_t end) const {
    const auto first = static_cast<int64_t>(begin), last = static_cast<int64_t>(end);
    SequenceRun run;
    run.count = end - begin;
    run.left = SoundHost(bytes, first - 1);
    run.right = SoundHost(bytes, last);
    if (begin == 0 && table.column > 0) {
      run.left = HostAt(overlay_, image_, table.layer, table.column - 1, g_.l2_entries - 1);
    }
    if (end == g_.l2_entries) {
      run.right = HostAt(overlay_, image_, table.layer, table.column + 1, 0);
    }
    for (int64_t k = 1; run.left && k <= 16; ++k, ++run.left_run) {
      if (SoundHost(bytes, first - k) != *run.left - static_cast<uint64_t>(k - 1)) break;
    }
    for (int64_t k = 0; run.right && k < 16; ++k, ++run.right_run) {
      if (SoundHost(bytes, last + k) != *run.right + static_cast<uint64_t>(k)) break;
    }
    return run;
  }

  Status Mend(const TableRef& table, MutableBytes bytes, bool* changed) {
    uint64_t begin_guest = table.column * g_.l2_span, size = image_.LayerSize(table.layer);
    uint64_t limit =
        begin_guest < size ? std::min(g_.l2_entries, g_.ClustersOf(size - begin_guest)) : 0;
    LoadOthers(table);
    auto kind_at = [&](uint64_t i) { return KindOf(LoadEntry(g_, bytes, i)); };
    for (uint64_t i = 0; i < limit; ++i) {
      Kind kind = kind_at(i);
      if (kind == Kind::kSound || kind == Kind::kOther) continue;
      if (FromOtherLayer(table, bytes, i, kind, changed)) continue;
      if (kind == Kind::kBroken) FromItself(table, bytes, i, changed);
      if (kind == Kind::kContested) IMG_RETURN_IF_ERROR(MendContested(table, bytes, i, changed));
    }
    size_t unresolved_before = unresolved_.size();
    for (uint64_t i = 0, end; i < limit; i = end) {
      end = i + 1;
      Kind kind = kind_at(i);
      if (kind != Kind::kBroken && kind != Kind::kEmpty) continue;
      while (end < limit && kind_at(end) == kind) ++end;
      MendRun(table, bytes, i, end, kind == Kind::kBroken, changed);
    }
    if (unresolved_.size() > unresolved_before) WeighOrder(bytes);
    return Ok();
  }

  // Whether guest order is host order, in this table or better in the one that others kept.
  void WeighOrder(Bytes bytes) {
    Bytes table = others_.empty() ? bytes : Bytes(others_.front().bytes);
    uint64_t previous = 0;
    for (uint64_t i = 0; i < g_.l2_entries; ++i) {
      auto host = SoundHost(table, static_cast<int64_t>(i));
      if (!host) continue;
      ++steps_;
      steps_up_ += *host >= previous;
      previous = *host;
    }
  }

  // When the first of the layers that use the table was made: snapshots stand in the order of time,
  // the disk comes last.
  uint32_t Age(const TableRef& table) const {
    uint32_t first = ~uint32_t{0};
    for (uint32_t layer : state_.columns->LayersOf(table.column, table.offset)) {
      if (layer != 0) first = std::min(first, layer);
    }
    return first;
  }

  // The tables of other layers in the column of `table`; once for all its entries.
  void LoadOthers(const TableRef& table) {
    others_.clear();
    const std::vector<TableRef> refs = OtherTables(state_, table);
    const uint32_t age = refs.empty() ? 0 : Age(table);
    std::vector<HostRange> bad;
    for (const TableRef& ref : refs) {
      Other other{ByteVector(g_.cluster_size), false};
      ReadTolerant(overlay_, ref.offset, other.bytes, &bad);
      if (AllZero(other.bytes) || Implausible(image_, other.bytes)) continue;
      other.leads =
          !loose_ && Age(ref) < age && orphans_.Missing(ref.offset >> g_.cluster_bits) == 0;
      others_.push_back(std::move(other));
    }
    lent_ = table.active ? donor_.Table(table.column) : std::nullopt;
  }

  // Another layer or the donor maps it, and the cluster misses one reference: this one. An entry
  // that maps nothing may be in the right, and the reference be one of a layer that is lost: then
  // only a layer from before tells.
  bool FromOtherLayer(const TableRef& table, MutableBytes bytes, uint64_t i, Kind kind,
                      bool* changed) {
    for (const Other& other : others_) {
      if (kind == Kind::kEmpty && !other.leads) continue;
      if (Follow(table, bytes, i, other.bytes,
                 "another layer has it there, and one more reference is counted", changed)) {
        return true;
      }
    }
    return lent_ && Follow(table, bytes, i, *lent_, "the donor has it there", changed);
  }
  bool Follow(const TableRef& table, MutableBytes bytes, uint64_t i, Bytes example,
              std::string_view evidence, bool* changed) {
    Entry entry = LoadEntry(g_, example, i);
    if (entry.compressed() || KindOf(entry) != Kind::kSound) return false;
    uint64_t cluster = entry.host() >> g_.cluster_bits;
    if (orphans_.Missing(cluster) < table.weight) return false;
    Link(table, bytes, i, cluster, 0.95, evidence, changed);
    return true;
  }

  void Link(const TableRef& table, MutableBytes bytes, uint64_t index, uint64_t cluster,
            double confidence, std::string_view evidence, bool* changed, bool keeps_flags = false) {
    Entry old = LoadEntry(g_, bytes, index);
    bool sole = table.active && table.weight == 1 && orphans_.Missing(cluster) == 1;
    Entry entry{(cluster << g_.cluster_bits) | (sole ? kCopied : 0), 0};
    if (g_.extended_l2) {
      bool plausible = old.alloc_bits() != 0 && (old.alloc_bits() & old.zero_bits()) == 0;
      entry.subclusters = plausible ? old.subclusters : 0xFFFFFFFF;
    } else if (keeps_flags && old.zero_flag() && image_.header.is_v3()) {
      entry.descriptor |= kZeroFlag;  // it read as zeros, wherever it led to
    }
    orphans_.Take(cluster, table.weight);
    StoreEntry(g_, bytes, index, entry);
    uint64_t released = KindOf(old) == Kind::kContested ? old.host() >> g_.cluster_bits : 0;
    restored_.push_back({table, index, cluster, confidence, evidence, released});
    *changed = true;
  }

  // The only cluster without an owner whose offset differs from `host` in one bit.
  std::optional<uint64_t> OneBitAway(uint64_t host) const {
    std::optional<uint64_t> found;
    for (unsigned bit = 9; bit < 56; ++bit) {
      uint64_t offset = host ^ (uint64_t{1} << bit);
      if (!IsAligned(offset, g_.cluster_size)) continue;
      uint64_t cluster = offset >> g_.cluster_bits;
      if (!orphans_.Lone(cluster) || orphans_.IsTable(cluster)) continue;
      if (found) return std::nullopt;
      found = cluster;
    }
    return found;
  }

  void FromItself(const TableRef& table, MutableBytes bytes, uint64_t i, bool* changed) {
    Entry entry = LoadEntry(g_, bytes, i);
    if (entry.compressed() || entry.host() == 0) return;
    std::optional<uint64_t> near = OneBitAway(entry.host());
    if (!near) return;
    Link(table, bytes, i, *near, 0.95, "the damaged entry differs from its place in one bit",
         changed, true);
  }

  // Entries that are all broken, or all empty.
  void MendRun(const TableRef& table, MutableBytes bytes, uint64_t begin, uint64_t end, bool broken,
               bool* changed) {
    if (!broken && !image_.header.is_v3()) return;
    SequenceRun run = RunOf(table, bytes, begin, end);
    run.was_mapped = broken;
    RunMatch match = MatchRun(state_, orphans_, run);
    for (uint64_t i = begin; i < end; ++i) {
      uint64_t cluster = match.confidence > 0 ? match.clusters[i - begin] : 0;
      if (cluster != 0) {
        Link(table, bytes, i, cluster, match.confidence, match.evidence, changed);
      } else if (broken) {
        unresolved_.push_back({table, i});
      }
    }
  }

  // Several claim the entry's cluster. It is in the right where its neighbours point there too, and
  // where metadata claims the cluster of which nothing stands there.
  Status MendContested(const TableRef& table, MutableBytes bytes, uint64_t i, bool* changed) {
    uint64_t cluster = LoadEntry(g_, bytes, i).host() >> g_.cluster_bits;
    SequenceRun run = RunOf(table, bytes, i, i + 1);
    run.was_mapped = true;
    bool rightful =
        (run.left && *run.left + 1 == cluster) || (run.right && *run.right == cluster + 1);
    if (rightful) return Ok();
    if (claims_.IsMeta(cluster)) {
      IMG_RETURN_IF_ERROR(FindMetadata());
      if (!metadata_->contains(cluster)) return Ok();
    }
    // Where neighbours stand apart, their order is no evidence against this entry.
    RunMatch match = MatchRun(state_, orphans_, run);
    if (match.confidence > 0) {
      Link(table, bytes, i, match.clusters[0], match.confidence, match.evidence, changed);
    } else if (claims_.IsMeta(cluster)) {
      unresolved_.push_back({table, i});
    }
    return Ok();
  }

  // Which of the contested clusters hold what the metadata that claims them would be.
  Status FindMetadata() {
    if (metadata_) return Ok();
    metadata_.emplace();
    ClaimList list;
    IMG_RETURN_IF_ERROR(CollectClaims(
        image_, *state_.columns,
        [&](uint64_t c) {
          return c < claims_.clusters() && claims_.IsConflict(c) && claims_.IsMeta(c);
        },
        &list));
    const Evidence evidence(image_, claims_);
    for (const Claim& claim : list.claims) {
      if (claim.kind != Claim::Kind::kMeta) continue;
      Claim data;
      data.cluster = claim.cluster;
      data.kind = Claim::Kind::kData;
      if (evidence.Weigh(data, claim).favours == Verdict::Favours::kOther) {
        metadata_->insert(claim.cluster);
      }
    }
    return Ok();
  }

  // As many entries are broken as clusters have no owner; of several, the order must be known.
  Status TheOnlyOnes() {
    if (unresolved_.empty() || unresolved_.size() > kMostAtOnce) return Ok();
    std::vector<uint64_t> data = orphans_.DataIn(0, image_.ClusterCount(), unresolved_.size() + 1);
    if (data.size() != unresolved_.size()) return Ok();
    if (data.size() > 1 && steps_up_ * 10 < steps_ * 9) return Ok();
    std::ranges::stable_sort(unresolved_, {}, [](const Place& place) {
      return std::tuple(place.table.layer, place.table.column, place.index);
    });
    std::string_view evidence =
        data.size() == 1 ? "it is the only cluster without an owner, and this the only broken entry"
                         : "as many clusters have no owner as entries are broken";
    ByteVector bytes(g_.cluster_size);
    std::vector<HostRange> bad;
    for (size_t k = 0; k < data.size(); ++k) {
      const auto& [table, index] = unresolved_[k];
      ReadTolerant(overlay_, table.offset, bytes, &bad);
      bool changed = false;
      Link(table, bytes, index, data[k], data.size() == 1 ? 0.8 : 0.6, evidence, &changed);
      IMG_RETURN_IF_ERROR(overlay_.WriteAt(table.offset, bytes));
    }
    return Ok();
  }

  Overlay& overlay_;
  const CheckState& state_;
  const Image& image_;
  const Geometry& g_;
  const ClaimMap& claims_;
  const Donor& donor_;
  const bool loose_;
  Orphans& orphans_;
  std::vector<Restored>& restored_;
  struct Place {
    TableRef table;
    uint64_t index;
  };
  std::vector<Place> unresolved_;
  struct Other {
    ByteVector bytes;
    bool leads = false;  // what maps nothing may follow it, too
  };
  std::vector<Other> others_;
  std::optional<ByteVector> lent_;                        // the donor's table of the column
  std::optional<std::unordered_set<uint64_t>> metadata_;  // FindMetadata()
  uint64_t steps_ = 0, steps_up_ = 0;
};

}  // namespace

Status RestoreEntries(Overlay& overlay, const CheckState& state, const Donor& donor, bool loose,
                      Orphans* orphans, std::vector<Restored>* restored) {
  return Strays(overlay, state, donor, loose, orphans, restored).Run();
}

}  // namespace imgfsck::qcow2
