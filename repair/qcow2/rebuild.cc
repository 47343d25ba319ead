// SPDX-License-Identifier: Apache-2.0
// Refcount structures that cannot be used are rebuilt from the references: single blocks where the
// table is sound, else the whole table. New structures go behind the file's end or into clusters
// proven free. Unreferenced clusters that hold data keep a count of one, so that no writer takes
// them: they may be the only copy of something.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <unordered_map>

#include "base/interrupt.h"
#include "formats/common/tolerant.h"
#include "formats/qcow2/metadata.h"
#include "repair/qcow2/passes.h"
#include "repair/qcow2/superseded.h"

namespace imgfsck::qcow2 {
namespace {

constexpr std::initializer_list<Problem> kTableProblems = {
    Problem::kQcow2RtUnaligned, Problem::kQcow2RtEmpty,          Problem::kQcow2RtCap,
    Problem::kQcow2RtPastEof,   Problem::kQcow2HdrRefcountOrder, Problem::kQcow2RefcountOverflow};
constexpr uint64_t kMostLayersLost = 16;  // as far as a count may be too high
constexpr size_t kMostSearched = 16;  // blocks; of more, each cluster would be compared too often
constexpr std::initializer_list<Problem> kBlockProblems = {
    Problem::kQcow2RtEntryUnaligned, Problem::kQcow2RtEntryPastEof, Problem::kQcow2RtEntryDuplicate,
    Problem::kQcow2RbOverlap, Problem::kQcow2RefcountZeroUsed};

// What came to light with the counts was there before.
constexpr Problem kRebuildReveals[] = {Problem::kQcow2RefcountLeak,
                                       Problem::kQcow2L2EmptyWithLeaks};

class Rebuild : PassBody {
 public:
  explicit Rebuild(const PassContext& context) : PassBody(context), judge_(context.image, state_) {}

  Result<PassOutcome> Run() {
    // Nothing would be counted but the table of counts itself, and the file would only grow.
    if (image_.active.entries == 0 && image_.L1Min(0) > 0) {
      outcome_.notes.push_back("the counts are not written anew while the L1 table is missing");
      return outcome_;
    }
    bool whole = image_.refcount_table.empty() || !image_.refcounts_usable ||
                 WantedAny(context_.report, context_.options, kTableProblems);
    IMG_RETURN_IF_ERROR(whole ? RebuildTable() : RebuildBlocks());
    if (outcome_.orphans.kept > 0) {
      outcome_.particulars.push_back(
          fmt::format("clusters that nothing refers to and that hold data: {}; counted as in use, "
                      "so that they are not overwritten",
                      outcome_.orphans.kept));
    }
    return outcome_;
  }

 private:
  // The count that cluster `c` shall have: its references, or one for data that nobody claims.
  // Structures that are being replaced have none.
  Result<uint64_t> Wanted(uint64_t c) {
    uint64_t count = state_.claims().Count(c);
    if (auto old = replaced_.find(c); old != replaced_.end()) {
      return count - std::min(count, old->second);
    }
    if (count != 0 || c >= state_.claims().clusters()) return count;
    IMG_ASSIGN_OR_RETURN(auto content, judge_.Judge(c));
    bool keep =
        content == OrphanJudge::Content::kValuable || content == OrphanJudge::Content::kUnreadable;
    outcome_.orphans.kept += keep;
    return keep ? 1 : 0;
  }

  // Fills block `index` for counts of 1 << order bits; *any: some count is not zero.
  Status FillBlock(uint64_t index, unsigned order, MutableBytes block, bool* any) {
    uint64_t entries = g_.cluster_size * 8 >> order;
    std::fill(block.begin(), block.end(), uint8_t{0});
    for (uint64_t i = 0; i < entries && index * entries + i < state_.claims().clusters(); ++i) {
      IMG_ASSIGN_OR_RETURN(uint64_t count, Wanted(index * entries + i));
      if (count == 0) continue;
      *any = true;
      if (!StoreRefcount(block, order, i, count)) {
        return Error{ErrorCode::kTooLarge, "a count does not fit the image's refcount width", {}};
      }
    }
    return Ok();
  }

  // Something refers to a cluster that block `index` counts: no writer leaves such a block out.
  bool AnyUsed(uint64_t index) const {
    const uint64_t first = index * g_.block_entries, clusters = state_.claims().clusters();
    for (uint64_t c = first; c < std::min(first + g_.block_entries, clusters); ++c) {
      if (state_.claims().IsUsed(c)) return true;
    }
    return false;
  }

  // Nearly all counts of what is in use are right, its own too, and there are none past the end.
  bool IsBlock(uint64_t index, uint64_t cluster, Bytes bytes) const {
    const uint64_t first = index * g_.block_entries, clusters = state_.claims().clusters();
    const uint64_t fewest = g_.refcount_order >= 3 ? 3 : 64;
    uint64_t used = 0, right = 0;
    for (uint64_t i = 0; i < g_.block_entries; ++i) {
      const uint64_t count = LoadRefcount(bytes, g_.refcount_order, i), c = first + i;
      if (c >= clusters ? count != 0 : c == cluster && count != 1) return false;
      if (c >= clusters || !state_.claims().IsUsed(c)) continue;
      ++used;
      right += count >= state_.claims().Count(c);
      if (count > state_.claims().Count(c) + image_.LayerCount() + kMostLayersLost) return false;
    }
    return used >= fewest && right * 8 >= used * 7;
  }

  // Where the blocks lie that entries no longer lead to, by index: their counts tell what damage
  // left without an owner. One pass over what nothing refers to.
  Result<std::map<uint64_t, uint64_t>> OldBlocks(const std::vector<uint64_t>& wanted) {
    std::map<uint64_t, uint64_t> found;
    if (wanted.empty() || wanted.size() > kMostSearched) return found;
    std::set<uint64_t> ambiguous;
    ByteVector bytes(g_.cluster_size);
    std::vector<HostRange> bad;
    for (uint64_t c = 1; c < image_.ClusterCount(); ++c) {
      if (state_.claims().IsUsed(c)) continue;
      IMG_RETURN_IF_ERROR(CheckStop());
      const uint64_t offset = c << g_.cluster_bits;
      if (auto extent = context_.image.ExtentAt(offset); extent && extent->hole) continue;
      bad.clear();
      ReadTolerant(context_.image, offset, bytes, &bad);
      if (!bad.empty()) continue;
      std::vector<uint64_t> fits;
      for (uint64_t i : wanted) {
        if (IsBlock(i, c, bytes)) fits.push_back(i);
      }
      for (uint64_t i : fits) {
        if (fits.size() > 1 || !found.try_emplace(i, offset).second) ambiguous.insert(i);
      }
    }
    for (uint64_t i : ambiguous) found.erase(i);
    return found;
  }

  // Entries that lead to no block of their own get the one that they led to, or a new one.
  Status RebuildBlocks() {
    std::set<uint64_t> taken;
    std::vector<uint64_t> broken;
    std::vector<uint64_t> table = image_.refcount_table;
    for (uint64_t i = 0; i < table.size(); ++i) {
      if (table[i] == 0) {
        if (state_.counts_compared && AnyUsed(i)) broken.push_back(i);
        continue;
      }
      uint64_t offset = BlockOffset(image_, i);
      bool own = offset != 0 && state_.claims().Count(offset >> g_.cluster_bits) == 1 &&
                 taken.insert(offset).second;
      // The first user of a block listed twice keeps it when nobody else is on it.
      if (!own) broken.push_back(i);
    }
    for (uint64_t i : broken) table[i] = 0;
    editor_.UseRefcountTable(image_.header.refcount_table_offset, table);
    std::vector<uint64_t> within = broken;
    std::erase_if(within,
                  [&](uint64_t i) { return i * g_.block_entries >= state_.claims().clusters(); });
    IMG_ASSIGN_OR_RETURN(const auto old, OldBlocks(within));
    ByteVector block(g_.cluster_size);
    for (uint64_t i : broken) {
      bool any = false;
      uint64_t target = 0;
      if (auto known = old.find(i); known != old.end()) {
        target = known->second;
      } else if (i * g_.block_entries < state_.claims().clusters()) {
        IMG_RETURN_IF_ERROR(FillBlock(i, g_.refcount_order, block, &any));
      }
      if (any) {
        IMG_ASSIGN_OR_RETURN(target, editor_.Reserve(1));
        IMG_RETURN_IF_ERROR(editor_.Write(target, block));
      }
      table[i] = target;
      IMG_RETURN_IF_ERROR(editor_.Write64(image_.header.refcount_table_offset + 8 * i, target));
      ++outcome_.changes;
    }
    editor_.UseRefcountTable(image_.header.refcount_table_offset, table);
    for (uint64_t i : broken) {
      if (table[i] != 0) IMG_RETURN_IF_ERROR(editor_.SetCount(table[i] >> g_.cluster_bits, 1));
    }
    return Ok();
  }

  // The narrowest width, from the present one up, that holds every count.
  unsigned WantedOrder() const {
    if (!image_.refcounts_usable) return 4;
    unsigned order = g_.refcount_order;
    if (!image_.header.is_v3()) return order;
    uint64_t largest = 1;
    for (const Finding& f : context_.report.findings.kept()) {
      if (f.problem != Problem::kQcow2RefcountOverflow || !f.host) continue;
      uint64_t first = f.host->offset.value >> g_.cluster_bits;
      for (uint64_t i = 0; i < f.count; ++i) {
        largest = std::max(largest, state_.claims().Count(first + i));
      }
    }
    while (order < kMaxRefcountOrder && largest >> (1u << order) != 0) ++order;
    return order;
  }

  // The old table and its blocks, as far as the check counted them.
  void FindReplaced() {
    ForEachMeta(image_, [&](const MetaRegion& region) {
      if (region.kind != MetaKind::kRefcountTable && region.kind != MetaKind::kRefcountBlock)
        return;
      uint64_t last = (region.host.end() - 1) >> g_.cluster_bits;
      for (uint64_t c = region.host.offset.value >> g_.cluster_bits; c <= last; ++c) ++replaced_[c];
    });
  }

  Status RebuildTable() {
    FindReplaced();
    unsigned order = WantedOrder();
    uint64_t entries = g_.cluster_size * 8 >> order;
    uint64_t end = editor_.end() >> g_.cluster_bits;  // first cluster behind everything
    // Room for the structures themselves: their own clusters need counts too.
    uint64_t blocks = 0, table_clusters = 0, total = end;
    for (int round = 0; round < 64; ++round) {
      blocks = DivRoundUp(total, entries);
      table_clusters = DivRoundUp(blocks * 8, g_.cluster_size);
      if (end + blocks + table_clusters == total) break;
      total = end + blocks + table_clusters;
    }
    if (table_clusters * g_.cluster_size > kMaxRefcountTableBytes) {
      return Error{ErrorCode::kTooLarge, "the refcount table would exceed its limit", {}};
    }
    uint64_t base = end << g_.cluster_bits;
    uint64_t next = base + (table_clusters << g_.cluster_bits);
    std::vector<uint64_t> table(table_clusters * g_.cluster_size / 8);
    ByteVector block(g_.cluster_size);
    uint64_t first_own = end, last_own = total;
    for (uint64_t i = 0; i < blocks; ++i) {
      bool any = false;
      IMG_RETURN_IF_ERROR(FillBlock(i, order, block, &any));
      bool holds_own = (i + 1) * entries > first_own && i * entries < last_own;
      if (!any && !holds_own) continue;
      table[i] = next;
      next += g_.cluster_size;
      IMG_RETURN_IF_ERROR(editor_.Write(table[i], block));
    }
    ByteVector raw(table.size() * 8);
    for (size_t i = 0; i < table.size(); ++i) StoreBe(&raw[8 * i], table[i]);
    IMG_RETURN_IF_ERROR(context_.image.SetSize(std::max(context_.image.Size(), next)));
    IMG_RETURN_IF_ERROR(editor_.Write(base, raw));
    IMG_RETURN_IF_ERROR(CountOwn(base, next, order, table));
    return WriteHeader(base, table_clusters, order);
  }

  Status CountOwn(uint64_t begin, uint64_t end, unsigned order,
                  const std::vector<uint64_t>& table) {
    uint64_t entries = g_.cluster_size * 8 >> order;
    ByteVector block(g_.cluster_size);
    for (uint64_t c = begin >> g_.cluster_bits; c < end >> g_.cluster_bits; ++c) {
      uint64_t offset = table[c / entries];
      IMG_RETURN_IF_ERROR(editor_.Read(offset, block));
      StoreRefcount(block, order, c % entries, 1);
      IMG_RETURN_IF_ERROR(editor_.Write(offset, block));
    }
    return Ok();
  }

  Status WriteHeader(uint64_t table, uint64_t clusters, unsigned order) {
    IMG_RETURN_IF_ERROR(editor_.Write64(48, table));
    IMG_RETURN_IF_ERROR(editor_.Write32(56, static_cast<uint32_t>(clusters)));
    if (image_.header.is_v3()) IMG_RETURN_IF_ERROR(editor_.Write32(96, order));
    ++outcome_.changes;
    return Ok();
  }

  OrphanJudge judge_;
  std::unordered_map<uint64_t, uint64_t> replaced_;  // references to old structures, by cluster
};

}  // namespace

const Pass kRebuildPass{"refcount-rebuild",
                        70,
                        "rebuild refcount blocks, or the whole table, from the references",
                        [](const CheckReport& report, const RepairOptions& options) {
                          return StateOf(report).walked &&
                                 (WantedAny(report, options, kTableProblems) ||
                                  WantedAny(report, options, kBlockProblems));
                        },
                        [](const PassContext& context) { return Rebuild(context).Run(); },
                        {},
                        kRebuildReveals,
                        true};

}  // namespace imgfsck::qcow2
