// SPDX-License-Identifier: Apache-2.0
#include "analyzers/qcow2/conflicts.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <unordered_map>

#include "analyzers/qcow2/entry_rules.h"
#include "analyzers/qcow2/evidence.h"
#include "analyzers/qcow2/l2_walk.h"
#include "base/interrupt.h"

namespace imgfsck::qcow2 {
namespace {

class Collector {
 public:
  Collector(const Image& image, const Columns& columns, const std::function<bool(uint64_t)>& wanted,
            ClaimList* list)
      : image_(image), g_(image.geometry), columns_(columns), wanted_(wanted), list_(list) {
    list_->layer_sets.push_back({});  // number 0: metadata
  }

  Status Run() {
    ForEachMeta(image_, [&](const MetaRegion& region) { AddMeta(region); });
    std::vector<TableRef> tables;
    std::vector<HostRange> bad;
    for (uint64_t begin = 0; begin < columns_.count(); begin += columns_.ChunkSize()) {
      columns_.Read(begin, std::min(begin + columns_.ChunkSize(), columns_.count()), &tables,
                    nullptr, &bad);
      for (const TableRef& table : tables) IMG_RETURN_IF_ERROR(AddTable(table));
    }
    std::stable_sort(list_->claims.begin(), list_->claims.end(),
                     [&](const Claim& a, const Claim& b) { return Key(a) < Key(b); });
    return Ok();
  }

 private:
  std::tuple<uint64_t, int, uint64_t, uint64_t, uint32_t> Key(const Claim& c) const {
    return {c.cluster, static_cast<int>(c.kind), c.table.column * g_.l2_entries + c.index,
            c.table.offset, c.table.layer};
  }
  void Push(Claim claim) {
    if (list_->claims.size() >= kMaxClaims) {
      list_->truncated = true;
    } else {
      list_->claims.push_back(claim);
    }
  }
  uint32_t LayerSet(const TableRef& table) {
    auto key = std::pair(table.column, table.offset);
    if (key == last_key_) return last_set_;
    std::vector<uint32_t> layers = columns_.LayersOf(table.column, table.offset);
    auto [it, fresh] =
        known_sets_.try_emplace(layers, static_cast<uint32_t>(list_->layer_sets.size()));
    if (fresh) list_->layer_sets.push_back(std::move(layers));
    last_key_ = key;
    last_set_ = it->second;
    return last_set_;
  }
  void AddMeta(const MetaRegion& region) {
    uint64_t first = region.host.offset.value >> g_.cluster_bits;
    uint64_t last = (region.host.end() - 1) >> g_.cluster_bits;
    for (uint64_t c = first; c <= last; ++c) {
      if (!wanted_(c)) continue;
      Claim claim;
      claim.cluster = c;
      claim.meta = region.kind;
      claim.meta_index = region.index;
      claim.meta_owner = region.owner;
      Push(claim);
    }
  }
  Status AddTable(const TableRef& table) {
    uint64_t own = table.offset >> g_.cluster_bits;
    if (wanted_(own)) {
      Claim claim;
      claim.cluster = own;
      claim.meta = MetaKind::kL2;
      claim.meta_index = table.column;
      claim.table = table;
      claim.layers = LayerSet(table);
      Push(claim);
    }
    if (list_->truncated) return CheckStop();
    for (const Use& use : UsesOf(table.offset)) {
      Claim claim;
      claim.cluster = use.cluster;
      claim.kind = use.kind;
      claim.table = table;
      claim.index = use.index;
      claim.descriptor = use.descriptor;
      claim.layers = LayerSet(table);
      Push(claim);
    }
    return CheckStop();
  }

  struct Use {
    uint64_t cluster = 0, index = 0, descriptor = 0;
    Claim::Kind kind{};
  };
  // What is wanted of a table's entries. A damaged L1 table may name one table millions of times:
  // such a table is read once.
  const std::vector<Use>& UsesOf(uint64_t table) {
    const bool keep = wanted_(table >> g_.cluster_bits) && kept_uses_ < kMaxClaims;
    if (keep) {
      auto [known, fresh] = known_uses_.try_emplace(table);
      if (fresh) {
        ReadUses(table, &known->second);
        kept_uses_ += known->second.size();
      }
      return known->second;
    }
    uses_.clear();
    ReadUses(table, &uses_);
    return uses_;
  }
  void ReadUses(uint64_t table, std::vector<Use>* uses) {
    bytes_.resize(g_.cluster_size);
    std::vector<HostRange> bad;
    ReadTolerant(*image_.source, table, bytes_, &bad);
    if (AllZero(bytes_) || Implausible(image_, bytes_)) return;
    for (uint64_t i = 0; i < g_.l2_entries; ++i) {
      Entry entry = LoadEntry(g_, bytes_, i);
      EntryClaim use = ClaimOf(image_, entry);
      if (use.kind == EntryClaim::Kind::kNone) continue;
      const bool span = use.kind == EntryClaim::Kind::kSpan;
      for (uint64_t c = use.first; c <= use.last; ++c) {
        if (!wanted_(c)) continue;
        uses->push_back({c, i, entry.descriptor, span ? Claim::Kind::kSpan : Claim::Kind::kData});
      }
    }
  }

  const Image& image_;
  const Geometry& g_;
  const Columns& columns_;
  const std::function<bool(uint64_t)>& wanted_;
  ClaimList* list_;
  ByteVector bytes_;
  std::vector<Use> uses_;
  std::unordered_map<uint64_t, std::vector<Use>> known_uses_;  // by the offset of the table
  size_t kept_uses_ = 0;
  std::map<std::vector<uint32_t>, uint32_t> known_sets_;
  std::pair<uint64_t, uint64_t> last_key_{~uint64_t{0}, 0};
  uint32_t last_set_ = 0;
};

// Judges the claims on one cluster.
class ClusterJudge {
 public:
  ClusterJudge(const Image& image, const Evidence& evidence, const ClaimList& list,
               std::span<const Claim> claims, Findings* findings)
      : image_(image),
        g_(image.geometry),
        evidence_(evidence),
        list_(list),
        claims_(claims),
        findings_(findings) {
    for (const Claim& c : claims) {
      (c.kind == Claim::Kind::kMeta   ? meta_
       : c.kind == Claim::Kind::kData ? data_
                                      : spans_)
          .push_back(&c);
    }
  }

  void Run() {
    JudgeTables();
    if (meta_.size() > 1) JudgeMetadata();
    if (!meta_.empty()) {
      for (const Claim* c : data_) Report(Problem::kQcow2L2DataOnMetadata, *c, *meta_.front());
      for (const Claim* c : spans_) JudgeSpanOnMetadata(*c);
      const Claim* user = !data_.empty()    ? data_.front()
                          : !spans_.empty() ? spans_.front()
                                            : nullptr;
      for (const Claim* c : meta_) {
        if (user != nullptr && c->meta == MetaKind::kRefcountBlock) {
          Report(Problem::kQcow2RbOverlap, *c, *user);
        }
        if (user != nullptr && c->meta == MetaKind::kBitmapData) {
          Report(Problem::kQcow2BitmapTentryOffset, *c, *user);
        }
      }
    }
    if (!data_.empty()) {
      for (const Claim* c : spans_) Report(Problem::kQcow2ComprOnStd, *c, *data_.front());
    }
    JudgeData();
    if (!same_layer_ && spans_.empty()) JudgeCopied();
  }

 private:
  Claimant Describe(const Claim& c) const {
    Claimant out;
    if (c.kind == Claim::Kind::kMeta) {
      out.structure = MetaRegion{c.meta, {}, c.meta_index, c.meta_owner}.Structure();
      if (c.meta != MetaKind::kL2) return out;
      out.layer = image_.LayerName(c.table.layer);
      out.structure = image_.TableName(c.table.layer, c.table.column);
      out.guest = MakeGuestRange(c.table.column * g_.l2_span, g_.l2_span);
      return out;
    }
    out.layer = image_.LayerName(c.table.layer);
    out.structure = image_.TableName(c.table.layer, c.table.column);
    out.guest = MakeGuestRange((c.table.column * g_.l2_entries + c.index) << g_.cluster_bits,
                               g_.cluster_size);
    return out;
  }

  // `own` is the claim the finding is about, `other` whom it collides with.
  void Report(Problem problem, const Claim& own, const Claim& other) {
    Finding f;
    f.problem = problem;
    const ProblemInfo& info = InfoOf(problem);
    bool snapshot_only = own.layers != 0 && own.table.layer != 0;
    if (snapshot_only && info.severity == Severity::kCorruption) {
      f.problem = Problem::kQcow2SnapL2Structure;
      f.detail = std::string(info.code);
      f.effect = info.effect;
      f.repair = info.repair;
    }
    Claimant self = Describe(own);
    f.structure = self.structure;
    f.layer = self.layer;
    f.guest = self.guest;
    f.host = MakeHostRange(own.cluster << g_.cluster_bits, g_.cluster_size);
    f.also.push_back(Describe(other));
    SettleEffect(own, other, &f);
    findings_->Add(std::move(f));
  }

  // The layer whose whole disk hangs on this metadata; nothing where none does.
  std::optional<size_t> LayerBelow(const Claim& c) const {
    if (c.kind != Claim::Kind::kMeta) return std::nullopt;
    if (c.meta == MetaKind::kL1) return 0;
    if (c.meta == MetaKind::kSnapshotL1) return c.meta_index + 1;
    return std::nullopt;
  }

  // Who of the two is right, and what that means for the guest.
  void SettleEffect(const Claim& own, const Claim& other, Finding* f) const {
    const Verdict verdict = evidence_.Weigh(own, other);
    f->evidence = verdict.evidence;
    f->confidence = verdict.confidence;
    if (f->guest) {
      if (verdict.favours == Verdict::Favours::kOwn) f->effect = Effect::kNone;
      return;
    }
    const auto own_disk = LayerBelow(own), other_disk = LayerBelow(other);
    const bool own_wrong = own_disk && verdict.favours != Verdict::Favours::kOwn;
    const bool other_wrong = other_disk && !own_disk && verdict.favours != Verdict::Favours::kOther;
    if (!own_wrong && !other_wrong) {
      f->effect = Effect::kNone;
      return;
    }
    f->layer = image_.LayerName(own_wrong ? *own_disk : *other_disk);
  }

  // A stream that begins in metadata is wrong for certain; one that only runs into it by its sector
  // count may be sound.
  void JudgeSpanOnMetadata(const Claim& span) {
    Report(Problem::kQcow2ComprOnStd, span, *meta_.front());
    if (DecodeCompressed(g_, span.descriptor).offset >> g_.cluster_bits == span.cluster) {
      Report(Problem::kQcow2L2DataOnMetadata, span, *meta_.front());
    }
  }

  // The same L2 table in several columns.
  void JudgeTables() {
    const Claim* first = nullptr;
    for (const Claim* c : meta_) {
      if (c->meta != MetaKind::kL2) continue;
      if (first == nullptr) {
        first = c;
      } else if (first->table.column != c->table.column) {
        bool same_layer = list_.ShareLayer(*first, *c);
        same_layer_ |= same_layer;
        Report(same_layer ? Problem::kQcow2L1EntryDuplicate : Problem::kQcow2CrossLayerAlias, *c,
               *first);
      }
    }
  }

  void JudgeMetadata() {
    auto is_shape = [](const Claim* c) {
      return c->meta == MetaKind::kHeader || c->meta == MetaKind::kL1 ||
             c->meta == MetaKind::kRefcountTable || c->meta == MetaKind::kSnapshotTable;
    };
    for (size_t i = 1; i < meta_.size(); ++i) {
      const Claim *a = meta_[0], *b = meta_[i];
      if (a->meta == MetaKind::kL2 && b->meta == MetaKind::kL2) continue;
      // The finding is about the one that is easier to rebuild.
      auto rank = [](const Claim* c) { return c->meta == MetaKind::kRefcountBlock ? 0 : 1; };
      if (rank(a) < rank(b)) std::swap(a, b);
      Problem problem = Problem::kQcow2MetaOverlap;
      if (b->meta == MetaKind::kRefcountBlock) {
        problem = a->meta == MetaKind::kRefcountBlock ? Problem::kQcow2RtEntryDuplicate
                                                      : Problem::kQcow2RbOverlap;
      } else if (is_shape(a) && is_shape(b)) {
        problem = Problem::kQcow2HdrShapeOverlap;
      } else if (a->meta == MetaKind::kBitmapData || b->meta == MetaKind::kBitmapData) {
        problem = Problem::kQcow2BitmapTentryOffset;
        if (b->meta != MetaKind::kBitmapData) std::swap(a, b);
      } else if (a->meta == MetaKind::kLuks || b->meta == MetaKind::kLuks) {
        problem = Problem::kQcow2LuksInFile;
      }
      Report(problem, *b, *a);
      if (problem == Problem::kQcow2RbOverlap || problem == Problem::kQcow2BitmapTentryOffset) {
        Report(Problem::kQcow2MetaOverlap, *a, *b);
      }
    }
  }

  void JudgeData() {
    std::unordered_map<uint32_t, uint64_t> guest_of_layer;
    const Claim* first = nullptr;
    for (const Claim* c : data_) {
      uint64_t guest = c->table.column * g_.l2_entries + c->index;
      bool same_layer = false;
      for (uint32_t layer : list_.LayersOf(*c)) {
        same_layer |= guest_of_layer.try_emplace(layer, guest).first->second != guest;
      }
      same_layer_ |= same_layer;
      if (first == nullptr) first = c;
      // Layers sharing a cluster at the same place are as they should be.
      if (first->table.column * g_.l2_entries + first->index == guest) continue;
      Report(same_layer ? Problem::kQcow2L2DataCrosslink : Problem::kQcow2CrossLayerAlias, *c,
             *first);
    }
  }

  // Only layers share it, at different places: that stays so, and is nobody's alone.
  void JudgeCopied() {
    auto alone = [&](const std::vector<const Claim*>& claims, const Claim& own) {
      size_t here = 0, elsewhere = 0;
      for (const Claim* c : claims) {
        const bool same = c->table.column == own.table.column && c->index == own.index;
        (same ? here : elsewhere) += list_.LayersOf(*c).size();
      }
      return here == 1 && elsewhere > 0;
    };
    for (const Claim* c : data_) {
      if (!meta_.empty() || !c->table.active || (c->descriptor & kCopied) == 0) continue;
      if (!alone(data_, *c)) continue;
      findings_->Add(EntryFinding(image_, c->table, c->index, Problem::kQcow2L2Copied, kCopiedSet));
    }
    const bool tables_alone = data_.empty() && std::ranges::all_of(meta_, [](const Claim* c) {
                                return c->meta == MetaKind::kL2;
                              });
    for (const Claim* c : meta_) {
      if (!tables_alone || !c->table.active || !c->table.copied || !alone(meta_, *c)) continue;
      findings_->Add(L1CopiedFinding(image_, c->table));
    }
  }

  const Image& image_;
  const Geometry& g_;
  const Evidence& evidence_;
  const ClaimList& list_;
  std::span<const Claim> claims_;
  Findings* findings_;
  std::vector<const Claim*> meta_, data_, spans_;
  bool same_layer_ = false;  // two of them are of one layer: that has to be split
};

}  // namespace

bool ClaimList::ShareLayer(const Claim& a, const Claim& b) const {
  const auto &x = LayersOf(a), &y = LayersOf(b);
  for (size_t i = 0, j = 0; i < x.size() && j < y.size();) {
    if (x[i] == y[j]) return true;
    x[i] < y[j] ? ++i : ++j;
  }
  return false;
}

Status CollectClaims(const Image& image, const Columns& columns,
                     const std::function<bool(uint64_t)>& wanted, ClaimList* list) {
  return Collector(image, columns, wanted, list).Run();
}

void JudgeConflicts(const Image& image, const ClaimMap& claims, const ClaimList& list,
                    Findings* findings) {
  const Evidence evidence(image, claims);
  std::span<const Claim> all = list.claims;
  for (size_t begin = 0, end; begin < all.size(); begin = end) {
    for (end = begin; end < all.size() && all[end].cluster == all[begin].cluster; ++end) {
    }
    ClusterJudge(image, evidence, list, all.subspan(begin, end - begin), findings).Run();
  }
}

}  // namespace imgfsck::qcow2
