// SPDX-License-Identifier: Apache-2.0
// Clusters that several claimants use become one cluster for each. A claimant's copy holds the
// bytes as they read before any repair began; one claimant stays where it is. Nothing that can be
// read changes, and no count is raised to make the sharing look legal.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "analyzers/qcow2/conflicts.h"
#include "analyzers/qcow2/entry_rules.h"
#include "base/text.h"
#include "repair/qcow2/passes.h"

namespace imgfsck::qcow2 {
namespace {

constexpr std::initializer_list<Problem> kSplitProblems = {
    Problem::kQcow2L2DataCrosslink,  Problem::kQcow2L2DataOnMetadata,
    Problem::kQcow2L1EntryDuplicate, Problem::kQcow2ComprOnStd,
    Problem::kQcow2SnapL2Structure,  Problem::kQcow2RbOverlap};

// The image below all overlays.
const ByteSource& Original(const Overlay& overlay) {
  const ByteSource* source = &overlay.base();
  while (auto* below = dynamic_cast<const Overlay*>(source)) source = &below->base();
  return *source;
}

class Split : PassBody {
 public:
  explicit Split(const PassContext& context)
      : PassBody(context), original_(Original(context.image)) {}

  Result<PassOutcome> Run() {
    if (image_.header.crypt_method == kCryptLuks) {
      outcome_.notes.push_back(
          "clusters claimed twice are left as they are: LUKS data cannot be moved without the key");
      return outcome_;
    }
    const ClaimMap& claims = state_.claims();
    IMG_RETURN_IF_ERROR(CollectClaims(
        image_, *state_.columns,
        [&](uint64_t c) { return c < claims.clusters() && claims.IsConflict(c); }, &list_));
    std::span<const Claim> all = list_.claims;
    for (size_t begin = 0, end; begin < all.size(); begin = end) {
      for (end = begin; end < all.size() && all[end].cluster == all[begin].cluster; ++end) {
      }
      if (end == all.size() && list_.truncated) break;  // perhaps not all claimants are known
      IMG_RETURN_IF_ERROR(SplitCluster(all.subspan(begin, end - begin)));
    }
    IMG_RETURN_IF_ERROR(SettleReleased());
    if (too_large_ > 0) {
      outcome_.notes.push_back(
          fmt::format("clusters claimed twice are left ({} of them): copying them would take more "
                      "than --max-copy ({})",
                      too_large_, HumanSize(context_.options.max_copy)));
    }
    return outcome_;
  }

 private:
  using Group = std::vector<const Claim*>;  // claims at one guest position, in several tables

  uint64_t GuestIndex(const Claim& c) const { return c.table.column * g_.l2_entries + c.index; }

  Status SplitCluster(std::span<const Claim> claims) {
    std::map<uint64_t, Group> data, tables;
    bool other = false;
    for (const Claim& c : claims) {
      if (c.kind == Claim::Kind::kData) {
        data[GuestIndex(c)].push_back(&c);
      } else if (c.kind == Claim::Kind::kMeta && c.meta == MetaKind::kL2) {
        tables[c.table.column].push_back(&c);
      } else {
        other = true;
      }
    }
    bool first_table = true;
    for (auto& [column, group] : tables) {
      if (!first_table) IMG_RETURN_IF_ERROR(MoveTable(*group.front()));
      first_table = false;
    }
    if (data.empty()) return Ok();
    const Group* keeper = other || !tables.empty() ? nullptr : &Keeper(data);
    if (data.size() == 1 && keeper != nullptr) return Ok();
    for (auto& [guest, group] : data) {
      if (&group == keeper) continue;
      IMG_RETURN_IF_ERROR(MoveData(group));
    }
    return Settle(claims.front().cluster, keeper, other || !tables.empty());
  }

  // The claimant that the neighbours speak for: the entry before or after leads to the cluster
  // before or after. Else the first.
  const Group& Keeper(const std::map<uint64_t, Group>& data) const {
    for (const auto& [guest, group] : data) {
      const Claim& c = *group.front();
      for (int step : {-1, 1}) {
        uint64_t index = c.index + static_cast<uint64_t>(step);
        if (index >= g_.l2_entries) continue;
        Entry entry = ReadEntry(c.table, index);
        uint64_t neighbour = (c.cluster + static_cast<uint64_t>(step)) << g_.cluster_bits;
        if (!entry.compressed() && entry.host() == neighbour) return group;
      }
    }
    return data.begin()->second;
  }

  Entry ReadEntry(const TableRef& table, uint64_t index) const {
    ByteVector bytes(g_.l2_entry_size);
    if (!editor_.Read(table.offset + index * g_.l2_entry_size, bytes)) return {};
    return LoadEntry(g_, bytes, 0);
  }
  Status WriteEntry(const TableRef& table, uint64_t index, const Entry& entry) {
    ByteVector bytes(g_.l2_entry_size);
    StoreEntry(g_, bytes, 0, entry);
    ++outcome_.changes;
    return editor_.Write(table.offset + index * g_.l2_entry_size, bytes);
  }

  bool Afford(uint64_t bytes) {
    if (RangeFits(copied_, bytes, context_.options.max_copy)) {
      copied_ += bytes;
      return true;
    }
    ++too_large_;
    return false;
  }

  Status CopyCluster(uint64_t from, uint64_t to) {
    ByteVector bytes(g_.cluster_size);
    std::vector<HostRange> bad;
    ReadTolerant(original_, from, bytes, &bad);
    return editor_.Write(to, bytes);
  }

  // A cluster of its own for one guest position, in all tables that have it.
  Status MoveData(const Group& group) {
    bool reads_zero = std::all_of(group.begin(), group.end(), [&](const Claim* c) {
      return !g_.extended_l2 && (c->descriptor & kZeroFlag) != 0;
    });
    uint64_t target = 0, weight = 0;
    for (const Claim* c : group) weight += c->table.weight;
    if (!reads_zero) {
      if (!Afford(g_.cluster_size)) return Ok();
      IMG_ASSIGN_OR_RETURN(target, editor_.Allocate());
      IMG_RETURN_IF_ERROR(CopyCluster(group.front()->cluster << g_.cluster_bits, target));
      if (weight != 1) IMG_RETURN_IF_ERROR(editor_.SetCount(target >> g_.cluster_bits, weight));
    }
    for (const Claim* c : group) {
      Entry entry = ReadEntry(c->table, c->index);
      entry.descriptor &= ~(kOffsetMask | kCopied);
      entry.descriptor |= target;
      if (target != 0 && c->table.active && weight == 1) entry.descriptor |= kCopied;
      IMG_RETURN_IF_ERROR(WriteEntry(c->table, c->index, entry));
      moved_.insert({c->table.offset, c->index});
    }
    return Ok();
  }

  // A table of its own, with data of its own, for the column of `claim`.
  Status MoveTable(const Claim& claim) {
    ByteVector bytes(g_.cluster_size);
    IMG_RETURN_IF_ERROR(editor_.Read(claim.table.offset, bytes));
    uint64_t needed = g_.cluster_size;
    for (uint64_t i = 0; i < g_.l2_entries; ++i) {
      EntryClaim use = ClaimOf(image_, LoadEntry(g_, bytes, i));
      if (use.kind != EntryClaim::Kind::kNone)
        needed += (use.last - use.first + 1) * g_.cluster_size;
    }
    if (!Afford(needed)) return Ok();
    for (uint64_t i = 0; i < g_.l2_entries; ++i) {
      Entry entry = LoadEntry(g_, bytes, i);
      IMG_ASSIGN_OR_RETURN(Entry own, OwnCopy(entry, claim.table));
      StoreEntry(g_, bytes, i, own);
    }
    IMG_ASSIGN_OR_RETURN(uint64_t target, editor_.Allocate());
    IMG_RETURN_IF_ERROR(editor_.Write(target, bytes));
    if (claim.table.weight != 1) {
      IMG_RETURN_IF_ERROR(editor_.SetCount(target >> g_.cluster_bits, claim.table.weight));
    }
    for (uint32_t layer : list_.LayersOf(claim)) {
      uint64_t value = target | (layer == 0 && claim.table.weight == 1 ? kCopied : 0);
      IMG_RETURN_IF_ERROR(
          editor_.Write64(image_.L1Of(layer).offset + 8 * claim.table.column, value));
      ++outcome_.changes;
    }
    return Ok();
  }

  Result<Entry> OwnCopy(Entry entry, const TableRef& table) {
    EntryClaim use = ClaimOf(image_, entry);
    if (use.kind == EntryClaim::Kind::kNone) return entry;
    uint64_t count = use.last - use.first + 1;
    IMG_ASSIGN_OR_RETURN(uint64_t target, editor_.Allocate(count));
    for (uint64_t i = 0; i < count; ++i) {
      uint64_t own = target + (i << g_.cluster_bits);
      released_[use.first + i] += table.weight;
      IMG_RETURN_IF_ERROR(CopyCluster((use.first + i) << g_.cluster_bits, own));
      if (table.weight != 1) {
        IMG_RETURN_IF_ERROR(editor_.SetCount(own >> g_.cluster_bits, table.weight));
      }
    }
    if (entry.compressed()) {
      uint64_t inside = DecodeCompressed(g_, entry.descriptor).offset & (g_.cluster_size - 1);
      uint64_t mask = (uint64_t{1} << g_.compressed_bits) - 1;
      entry.descriptor = (entry.descriptor & ~mask) | (target + inside);
      return entry;
    }
    entry.descriptor &= ~(kOffsetMask | kCopied);
    entry.descriptor |= target | (table.active && table.weight == 1 ? kCopied : 0);
    return entry;
  }

  // Counts of clusters that a copied table no longer refers to.
  Status SettleReleased() {
    if (!state_.counts_compared) return Ok();
    for (const auto& [cluster, weight] : released_) {
      uint64_t count = state_.claims().Count(cluster);
      uint64_t left = count - std::min(count, weight);
      if (StoredCount(image_, cluster) == left || left > g_.MaxRefcount()) continue;
      IMG_RETURN_IF_ERROR(editor_.SetCount(cluster, left));
    }
    return Ok();
  }

  // The count of the old cluster, and COPIED of who stays there.
  Status Settle(uint64_t cluster, const Group* keeper, bool keeps_other) {
    if (keeper == nullptr) {
      if (!keeps_other || !state_.counts_compared) return Ok();
      uint64_t left = state_.claims().Count(cluster);
      for (const Claim& c : list_.claims) {
        if (c.cluster == cluster && moved_.contains({c.table.offset, c.index}) &&
            c.kind == Claim::Kind::kData) {
          left -= std::min<uint64_t>(left, c.table.weight);
        }
      }
      return StoredCount(image_, cluster) == left ? Ok() : editor_.SetCount(cluster, left);
    }
    uint64_t weight = 0;
    for (const Claim* c : *keeper) weight += c->table.weight;
    bool all_moved = too_large_ == 0;
    if (!all_moved) return Ok();
    if (state_.counts_compared && StoredCount(image_, cluster) != weight) {
      IMG_RETURN_IF_ERROR(editor_.SetCount(cluster, weight));
    }
    for (const Claim* c : *keeper) {
      if (!c->table.active) continue;
      Entry entry = ReadEntry(c->table, c->index);
      uint64_t wanted = (entry.descriptor & ~kCopied) | (weight == 1 ? kCopied : 0);
      if (wanted == entry.descriptor) continue;
      entry.descriptor = wanted;
      IMG_RETURN_IF_ERROR(WriteEntry(c->table, c->index, entry));
    }
    return Ok();
  }

  const ByteSource& original_;
  ClaimList list_;
  uint64_t copied_ = 0, too_large_ = 0;
  std::set<std::pair<uint64_t, uint64_t>> moved_;  // table offset, entry
  std::map<uint64_t, uint64_t> released_;          // references that a cluster has lost
};

// Layers that share a cluster at different places are only suspicious as long as all of them are
// counted. Where they are not, to raise the count would bless what nobody meant.
bool UncountedAlias(const CheckReport& report, const RepairOptions& options) {
  return report.findings.Has(Problem::kQcow2CrossLayerAlias) &&
         WantedAny(report, options, {Problem::kQcow2RefcountLow});
}

}  // namespace

const Pass kSplitPass{
    "split", 50, "give every claimant of a shared cluster a cluster of its own",
    [](const CheckReport& report, const RepairOptions& options) {
      return StateOf(report).walked && StateOf(report).claims().AnyConflict() &&
             (WantedAny(report, options, kSplitProblems) || UncountedAlias(report, options));
    },
    [](const PassContext& context) { return Split(context).Run(); }};

}  // namespace imgfsck::qcow2
