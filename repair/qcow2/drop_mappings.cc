// SPDX-License-Identifier: Apache-2.0
// The repairs that cost guest data: entries that lead nowhere become zeros, tables that are none
// are unlinked. Each says which guest range is lost; what they led to by mistake is untouched.
#include "analyzers/qcow2/entry_rules.h"
#include "repair/qcow2/lost_tables.h"
#include "repair/qcow2/passes.h"

namespace imgfsck::qcow2 {
namespace {

constexpr std::initializer_list<Problem> kDropMappingsProblems = {
    Problem::kQcow2L1EntryUnaligned, Problem::kQcow2L1EntryPastEof,
    Problem::kQcow2L2Implausible,    Problem::kQcow2L2EntryReserved,
    Problem::kQcow2L2EntryUnaligned, Problem::kQcow2L2EntryPastEof,
    Problem::kQcow2ComprPastEof,     Problem::kQcow2ComprDataFile,
    Problem::kQcow2Extl2BothBits,    Problem::kQcow2Extl2AllocNoHost,
    Problem::kQcow2Extl2ComprBitmap, Problem::kQcow2SnapL2Structure,
    Problem::kQcow2MetaOverlap,      Problem::kQcow2L2ZeroFlagV2,
    Problem::kQcow2L1EntryReserved};

class DropMappings : PassBody {
 public:
  explicit DropMappings(const PassContext& context)
      : PassBody(context), metadata_(OtherMetadata(state_)) {
    for (const TableRef& table : state_.walk.implausible) no_tables_.insert(table.offset);
  }

  Result<PassOutcome> Run() {
    if (L1ReachesTooFar()) {
      // What lies behind the table is not its entries: nothing else is judged by them.
      IMG_RETURN_IF_ERROR(editor_.Write32(36, static_cast<uint32_t>(image_.L1Min(0))));
      ++outcome_.changes;
      return outcome_;
    }
    for (size_t layer = 0; layer < image_.LayerCount(); ++layer) {
      IMG_RETURN_IF_ERROR(MendL1(layer));
    }
    Status status = ForEachTable(context_.image, state_,
                                 [&](const TableRef& table, MutableBytes bytes, bool* changed) {
                                   return MendTable(table, bytes, changed);
                                 });
    IMG_RETURN_IF_ERROR(std::move(status));
    return outcome_;
  }

 private:
  bool TableLost(uint64_t offset) const { return no_tables_.contains(offset); }

  // The active L1 table is longer than the disk needs, and other things' bytes are among what would
  // be its entries there.
  bool L1ReachesTooFar() const {
    const L1Location& l1 = image_.active;
    const uint64_t needed = image_.L1Min(0);
    if (needed == 0 || l1.entries <= needed || !May(Problem::kQcow2L1EntryPastEof)) return false;
    ByteVector raw(l1.bytes());
    std::vector<HostRange> bad;
    ReadTolerant(context_.image, l1.offset, raw, &bad);
    for (uint64_t i = needed; i < l1.entries; ++i) {
      const uint64_t place = l1.offset + 8 * i, value = LoadBe<uint64_t>(&raw[8 * i]);
      const uint64_t offset = value & kOffsetMask;
      if (offset == 0 && (value & kL1Reserved) == 0) continue;
      const bool wrong = (value & kL1Reserved) != 0 || !IsAligned(offset, g_.cluster_size) ||
                         offset >= image_.file_size;
      // Behind the first cluster of what the disk needs.
      if (wrong && place >= AlignUp(l1.offset + 8 * needed, g_.cluster_size)) return true;
    }
    return false;
  }

  // Guest data has the cluster as well: what would be written there as a table's is the guest's.
  // The split comes first.
  bool OnData(uint64_t offset) const {
    const uint64_t cluster = offset >> g_.cluster_bits;
    const ClaimMap& claims = state_.claims();
    return cluster < claims.clusters() && (claims.IsData(cluster) || claims.IsCompressed(cluster));
  }

  // Entries none of which can be one, and more of the kind: a snapshot that was led onto something
  // else. What would be cleared as its entries may be the only copy of guest data.
  bool IsNoTable(const L1Location& l1, Bytes raw) const {
    uint64_t used = 0, wrong = 0;
    for (uint64_t i = 0; i < l1.entries; ++i) {
      const uint64_t value = LoadBe<uint64_t>(&raw[8 * i]), offset = value & kOffsetMask;
      used += value != 0;
      wrong += (value & kL1Reserved) != 0 || !IsAligned(offset, g_.cluster_size) ||
               offset >= image_.file_size;
    }
    if (wrong == 0 || wrong != used) return false;
    if (wrong >= 2 || OnData(l1.offset)) return true;
    const uint64_t end = l1.offset + l1.bytes();
    ByteVector behind(AlignUp(end, g_.cluster_size) - end);
    std::vector<HostRange> bad;
    ReadTolerant(context_.image, end, behind, &bad);
    return !AllZero(behind);
  }

  Status MendL1(size_t layer) {
    const L1Location& l1 = image_.L1Of(layer);
    ByteVector raw(l1.bytes());
    std::vector<HostRange> bad;
    ReadTolerant(context_.image, l1.offset, raw, &bad);
    if (layer > 0 && IsNoTable(l1, raw)) {
      outcome_.notes.push_back(
          "the L1 table of a snapshot holds something else; it stays as it is");
      return Ok();
    }
    for (uint64_t i = 0; i < l1.entries; ++i) {
      uint64_t value = LoadBe<uint64_t>(&raw[8 * i]), offset = value & kOffsetMask;
      const bool noise = LostItsTable(value) && May(Problem::kQcow2L1EntryReserved);
      if (offset == 0 && !noise) continue;
      bool unaligned = !IsAligned(offset, g_.cluster_size) && May(Problem::kQcow2L1EntryUnaligned);
      bool past = offset >= image_.file_size && May(Problem::kQcow2L1EntryPastEof);
      bool garbage = TableLost(offset) && May(Problem::kQcow2L2Implausible);
      bool taken = offset != 0 && metadata_.contains(offset >> g_.cluster_bits) &&
                   May(Problem::kQcow2MetaOverlap);
      if (!noise && !unaligned && !past && !garbage && !taken) continue;
      IMG_RETURN_IF_ERROR(editor_.Write64(l1.offset + 8 * i, 0));
      ++outcome_.changes;
      uint64_t begin = i * g_.l2_span, size = image_.LayerSize(layer);
      if (begin < size) Lose(layer, begin, std::min(g_.l2_span, size - begin));
    }
    return Ok();
  }

  void Lose(size_t layer, uint64_t begin, uint64_t length) {
    LayerRange range{image_.LayerName(layer), MakeGuestRange(begin, length)};
    outcome_.changed.push_back(range);
    outcome_.lost.push_back(std::move(range));
  }

  // What reads as zeros in this image; nothing where only a cluster of zeros would.
  std::optional<Entry> ZeroEntry() const {
    if (g_.extended_l2) return Entry{0, 0xFFFFFFFF00000000};
    if (image_.header.is_v3()) return Entry{kZeroFlag, 0};
    if (image_.header.backing_file_offset == 0) return Entry{0, 0};
    return std::nullopt;
  }

  enum class Fate { kKeep, kMended, kZeroed };
  Fate Decide(Entry* entry) const {
    if (entry->compressed()) {
      CompressedSpan span = DecodeCompressed(g_, entry->descriptor);
      if ((image_.has_data_file() && May(Problem::kQcow2ComprDataFile)) ||
          (span.offset >= image_.file_size && May(Problem::kQcow2ComprPastEof))) {
        return Fate::kZeroed;
      }
      if (g_.extended_l2 && entry->subclusters != 0 && May(Problem::kQcow2Extl2ComprBitmap)) {
        entry->subclusters = 0;
        return Fate::kMended;
      }
      return Fate::kKeep;
    }
    uint64_t host = entry->host();
    if (image_.has_data_file()) return Fate::kKeep;
    if (!IsAligned(host, g_.cluster_size) && May(Problem::kQcow2L2EntryUnaligned)) {
      return Fate::kZeroed;
    }
    if (host >= image_.file_size && May(Problem::kQcow2L2EntryPastEof)) return Fate::kZeroed;
    // Version 2 has no such flag, and nobody wrote it there: what is mapped is the data.
    if (entry->zero_flag() && !image_.header.is_v3() && May(Problem::kQcow2L2ZeroFlagV2)) {
      if (host == 0) return Fate::kZeroed;
      entry->descriptor &= ~kZeroFlag;
      return Fate::kMended;
    }
    if (g_.extended_l2) return MendSubclusters(entry);
    return Fate::kKeep;
  }

  Fate MendSubclusters(Entry* entry) const {
    uint32_t alloc = entry->alloc_bits(), zero = entry->zero_bits();
    if ((alloc & zero) != 0 && May(Problem::kQcow2Extl2BothBits)) zero &= ~alloc;
    if (alloc != 0 && entry->host() == 0 && May(Problem::kQcow2Extl2AllocNoHost)) {
      zero |= alloc;
      alloc = 0;
    }
    uint64_t bits = uint64_t{zero} << 32 | alloc;
    if (bits == entry->subclusters) return Fate::kKeep;
    entry->subclusters = bits;
    return Fate::kMended;
  }

  Status MendTable(const TableRef& table, MutableBytes bytes, bool* changed) {
    if (OnData(table.offset)) return Ok();
    for (uint64_t i = 0; i < g_.l2_entries; ++i) {
      Entry entry = LoadEntry(g_, bytes, i);
      if (entry.empty()) continue;
      Fate fate = Decide(&entry);
      if (fate == Fate::kKeep) continue;
      if (fate == Fate::kZeroed) {
        auto zero = ZeroEntry();
        if (!zero) {
          IMG_ASSIGN_OR_RETURN(uint64_t cluster, editor_.Allocate());
          if (table.weight != 1) {
            IMG_RETURN_IF_ERROR(editor_.SetCount(cluster >> g_.cluster_bits, table.weight));
          }
          zero = Entry{cluster | (table.active && table.weight == 1 ? kCopied : 0), 0};
        }
        entry = *zero;
        AddLayers(state_, table, i, &outcome_.lost);
      }
      AddLayers(state_, table, i, &outcome_.changed);
      StoreEntry(g_, bytes, i, entry);
      ++outcome_.changes;
      *changed = true;
    }
    return Ok();
  }

  std::unordered_set<uint64_t> metadata_;   // clusters that no L2 table can have
  std::unordered_set<uint64_t> no_tables_;  // places of what are none
};

constexpr Problem kDropMappingsMayAdd[] = {
    Problem::kQcow2RefcountLeak};  // of what led nowhere by mistake

}  // namespace

const Pass kDropMappingsPass{"drop-mappings",
                             45,
                             "let guest ranges whose mapping leads nowhere read as zeros",
                             [](const CheckReport& report, const RepairOptions& options) {
                               return options.mode == RepairMode::kAll && StateOf(report).walked &&
                                      WantedAny(report, options, kDropMappingsProblems);
                             },
                             [](const PassContext& context) { return DropMappings(context).Run(); },
                             {},
                             kDropMappingsMayAdd};

}  // namespace imgfsck::qcow2
