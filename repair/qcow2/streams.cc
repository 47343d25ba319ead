// SPDX-License-Identifier: Apache-2.0
// Compressed clusters whose stream is not what the entry says: a wrong number of sectors is put
// right, streams that lie on one another become one for each, of a stream that does not decode the
// part is kept that does. The old bytes stay in the file, whoever refers to them afterwards.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "analyzers/qcow2/entry_rules.h"
#include "base/text.h"
#include "formats/common/deflate.h"
#include "formats/common/stored.h"
#include "repair/qcow2/passes.h"

namespace imgfsck::qcow2 {
namespace {

constexpr std::initializer_list<Problem> kStreamsProblems = {
    Problem::kQcow2ComprUndecodable, Problem::kQcow2ComprShortSpan, Problem::kQcow2ComprLongSpan,
    Problem::kQcow2ComprOverlap, Problem::kQcow2SnapL2Structure};

class Streams : PassBody {
 public:
  explicit Streams(const PassContext& context) : PassBody(context) {}

  Result<PassOutcome> Run() {
    if (May(Problem::kQcow2ComprShortSpan) || May(Problem::kQcow2ComprLongSpan)) {
      IMG_RETURN_IF_ERROR(ForEachCluster(state_.misfits, &Streams::SetLength));
    }
    if (May(Problem::kQcow2ComprUndecodable)) {
      IMG_RETURN_IF_ERROR(ForEachCluster(state_.undecodable, &Streams::KeepPart));
    }
    // What does not decode may be the one that is in the wrong: so first that, then the others.
    if (May(Problem::kQcow2ComprOverlap) && outcome_.changes == 0) {
      IMG_RETURN_IF_ERROR(ForEachCluster(state_.overlaps, &Streams::MoveAway));
    }
    IMG_RETURN_IF_ERROR(SettleCounts());
    if (too_large_ > 0) {
      outcome_.notes.push_back(
          fmt::format("compressed clusters that lie on one another are left ({} of them): copying "
                      "them would take more than --max-copy ({})",
                      too_large_, HumanSize(context_.options.max_copy)));
    }
    return std::move(outcome_);
  }

 private:
  // One compressed cluster, in all tables that have it at this place.
  struct Cluster {
    std::vector<StreamRef> refs;
    uint64_t weight = 0;
    const StreamRef& first() const { return refs.front(); }
  };

  Status ForEachCluster(const std::vector<StreamRef>& list,
                        Status (Streams::*mend)(const Cluster&)) {
    std::map<std::tuple<uint64_t, uint64_t, uint64_t>, Cluster> clusters;
    for (const StreamRef& ref : list) {
      IMG_ASSIGN_OR_RETURN(const Entry entry, Stored(ref));
      if (!entry.compressed()) continue;
      Cluster& cluster = clusters[{ref.table.column, ref.index, entry.descriptor}];
      cluster.refs.push_back(ref);
      cluster.weight += ref.table.weight;
    }
    for (const auto& [key, cluster] : clusters) IMG_RETURN_IF_ERROR((this->*mend)(cluster));
    return Ok();
  }

  uint64_t Place(const StreamRef& ref) const {
    return ref.table.offset + ref.index * g_.l2_entry_size;
  }

  Result<Entry> Stored(const StreamRef& ref) const {
    ByteVector bytes(g_.l2_entry_size);
    IMG_RETURN_IF_ERROR(editor_.Read(Place(ref), bytes));
    return LoadEntry(g_, bytes, 0);
  }

  // The same entry in all tables of the cluster. What it led to before misses these references.
  Status Replace(const Cluster& cluster, const Entry& entry) {
    IMG_ASSIGN_OR_RETURN(const Entry old, Stored(cluster.first()));
    const EntryClaim before = ClaimOf(image_, old), after = ClaimOf(image_, entry);
    for (uint64_t c = before.first; c <= before.last; ++c) {
      const bool stays =
          after.kind == EntryClaim::Kind::kSpan && c >= after.first && c <= after.last;
      if (!stays) released_[c] += cluster.weight;
    }
    ByteVector bytes(g_.l2_entry_size);
    for (const StreamRef& ref : cluster.refs) {
      Entry own = entry;
      if (!entry.compressed() && entry.host() != 0 && ref.table.active && cluster.weight == 1) {
        own.descriptor |= kCopied;
      }
      StoreEntry(g_, bytes, 0, own);
      IMG_RETURN_IF_ERROR(editor_.Write(Place(ref), bytes));
      ++outcome_.changes;
    }
    return Ok();
  }

  void Add(const Cluster& cluster, std::vector<LayerRange>* ranges) const {
    for (const StreamRef& ref : cluster.refs) AddLayers(state_, ref.table, ref.index, ranges);
  }

  // A cluster of `weight` references for `bytes`, from `inside` on.
  Result<uint64_t> NewCluster(uint64_t weight, uint64_t inside, Bytes bytes) {
    IMG_ASSIGN_OR_RETURN(const uint64_t target, editor_.Allocate());
    if (weight != 1) IMG_RETURN_IF_ERROR(editor_.SetCount(target >> g_.cluster_bits, weight));
    IMG_RETURN_IF_ERROR(editor_.Write(target + inside, bytes));
    return target;
  }

  bool Afford() {
    if (RangeFits(copied_, g_.cluster_size, context_.options.max_copy)) {
      copied_ += g_.cluster_size;
      return true;
    }
    ++too_large_;
    return false;
  }

  // --- a wrong number of sectors

  Status SetLength(const Cluster& cluster) {
    IMG_ASSIGN_OR_RETURN(Entry entry, Stored(cluster.first()));
    const EntryClaim before = ClaimOf(image_, entry);
    const uint64_t was = DecodeCompressed(g_, entry.descriptor).length;
    entry.descriptor = cluster.first().descriptor;  // the right one
    const EntryClaim after = ClaimOf(image_, entry);
    const bool longer = DecodeCompressed(g_, entry.descriptor).length > was;
    if (!May(longer ? Problem::kQcow2ComprShortSpan : Problem::kQcow2ComprLongSpan)) return Ok();
    if (longer) Add(cluster, &outcome_.settled);
    for (uint64_t c = before.last + 1; c <= after.last; ++c) {
      // The rest of the stream lies in somebody else's cluster: it gets one of its own.
      if (state_.claims().IsData(c) || state_.claims().IsMeta(c)) {
        return CopyStream(cluster, entry.descriptor);
      }
    }
    for (uint64_t c = after.last + 1; c <= before.last; ++c) {
      IMG_ASSIGN_OR_RETURN(const bool spare, Spare(c, cluster.weight));
      if (spare) continue;
      outcome_.notes.push_back(
          fmt::format("the compressed cluster at {} keeps its length: nothing else refers to the "
                      "bytes behind it, and they are not zeros",
                      Hex(DecodeCompressed(g_, entry.descriptor).offset)));
      return Ok();
    }
    return Replace(cluster, entry);
  }

  // Nothing is lost when these references to the cluster go.
  Result<bool> Spare(uint64_t cluster, uint64_t references) const {
    auto gone = released_.find(cluster);
    if (gone != released_.end()) references += gone->second;
    if (state_.claims().Count(cluster) > references) return true;
    const uint64_t begin = cluster << g_.cluster_bits;
    return ReadsAsZeros(context_.image, begin, begin + g_.cluster_size);
  }

  // --- streams on one another

  Status MoveAway(const Cluster& cluster) {
    IMG_ASSIGN_OR_RETURN(const Entry entry, Stored(cluster.first()));
    return CopyStream(cluster, entry.descriptor);
  }

  // The bytes that the descriptor names, and the descriptor's own form, in a cluster of their own.
  Status CopyStream(const Cluster& cluster, uint64_t descriptor) {
    if (!Afford()) return Ok();
    const CompressedSpan span = DecodeCompressed(g_, descriptor);
    const uint64_t inside = span.offset % kCompressedSector;
    ByteVector bytes(span.length);
    std::vector<HostRange> bad;
    ReadTolerant(context_.image, span.offset, bytes, &bad);
    IMG_ASSIGN_OR_RETURN(const uint64_t target, NewCluster(cluster.weight, inside, bytes));
    IMG_ASSIGN_OR_RETURN(Entry entry, Stored(cluster.first()));
    const uint64_t mask = (uint64_t{1} << g_.compressed_bits) - 1;
    entry.descriptor = (descriptor & ~mask) | (target + inside);
    return Replace(cluster, entry);
  }

  // --- streams that do not decode

  Status KeepPart(const Cluster& cluster) {
    IMG_ASSIGN_OR_RETURN(const Entry old, Stored(cluster.first()));
    ByteVector out(g_.cluster_size);
    const uint64_t kept = Decode(old.descriptor, out);
    Entry entry;
    if (kept > 0) {
      if (!Afford()) return Ok();
      IMG_ASSIGN_OR_RETURN(const uint64_t target, NewCluster(cluster.weight, 0, out));
      entry = {target, g_.extended_l2 ? uint64_t{0xFFFFFFFF} : 0};
    } else {
      IMG_ASSIGN_OR_RETURN(entry, ZeroEntry(cluster.weight));
    }
    IMG_RETURN_IF_ERROR(Replace(cluster, entry));
    Add(cluster, &outcome_.changed);
    std::vector<LayerRange> lost;
    Add(cluster, &lost);
    for (LayerRange& range : lost) {
      range.guest = MakeGuestRange(range.guest.offset.value + kept, g_.cluster_size - kept);
      outcome_.lost.push_back(std::move(range));
    }
    const uint64_t guest = (cluster.first().table.column * g_.l2_entries + cluster.first().index)
                           << g_.cluster_bits;
    if (kept > 0) {
      outcome_.particulars.push_back(
          fmt::format("of the compressed guest cluster at {} the first {} bytes are kept; the last "
                      "of these may "
                      "be wrong already",
                      Hex(guest), kept));
    }
    return Ok();
  }

  // Bytes that come out before the damage, in the front of `out`; the rest stays zero. None where
  // they could not be stored: encrypted data needs the key.
  uint64_t Decode(uint64_t descriptor, MutableBytes out) const {
    if (image_.header.crypt_method != kCryptNone || image_.header.compression_type == kZstd)
      return 0;
    const CompressedSpan span = DecodeCompressed(g_, descriptor);
    ByteVector in(span.length);
    std::vector<HostRange> bad;
    ReadTolerant(context_.image, span.offset, in, &bad);
    const uint64_t kept = AlignDown(InflateRawPart(in, out).produced, kSector);
    std::ranges::fill(out.subspan(kept), uint8_t{0});
    return kept;
  }

  // What reads as zeros: version 2 has no flag for that where a backing file shows through.
  Result<Entry> ZeroEntry(uint64_t weight) {
    if (g_.extended_l2) return Entry{0, 0xFFFFFFFF00000000};
    if (image_.header.is_v3()) return Entry{kZeroFlag, 0};
    if (image_.header.backing_file_offset == 0) return Entry{0, 0};
    IMG_ASSIGN_OR_RETURN(const uint64_t target, NewCluster(weight, 0, {}));
    return Entry{target, 0};
  }

  // --- counts

  // Clusters that other references still hold are counted one less each; one that nothing refers to
  // any more keeps its count, so that nobody writes over its bytes.
  Status SettleCounts() {
    if (!state_.counts_compared) return Ok();
    for (const auto& [cluster, references] : released_) {
      const uint64_t count = state_.claims().Count(cluster), stored = StoredCount(image_, cluster);
      const uint64_t left = count - std::min(count, references);
      if (stored <= left) continue;
      if (left == 0) {
        IMG_ASSIGN_OR_RETURN(const bool spare, Spare(cluster, 0));
        if (!spare) continue;
      }
      const uint64_t lowered = stored - std::min(stored, references);
      IMG_RETURN_IF_ERROR(editor_.SetCount(cluster, std::max(left, lowered)));
    }
    return Ok();
  }

  std::map<uint64_t, uint64_t> released_;  // references that a cluster has lost
  uint64_t copied_ = 0, too_large_ = 0;
};

// A stream that does not decode leaves bytes that nothing refers to any more; a longer one touches
// clusters that do not count it yet.
constexpr Problem kStreamsMayAdd[] = {Problem::kQcow2RefcountLeak, Problem::kQcow2RefcountLow,
                                      Problem::kQcow2RefcountZeroUsed};

}  // namespace

const Pass kStreamPass{
    "streams",
    48,
    "put compressed clusters right",
    [](const CheckReport& report, const RepairOptions& options) {
      const CheckState& state = StateOf(report);
      return state.walked && WantedAny(report, options, kStreamsProblems) &&
             !(state.misfits.empty() && state.undecodable.empty() && state.overlaps.empty());
    },
    [](const PassContext& context) { return Streams(context).Run(); },
    {},
    kStreamsMayAdd};

}  // namespace imgfsck::qcow2
