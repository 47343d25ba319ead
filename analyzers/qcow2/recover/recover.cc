// SPDX-License-Identifier: Apache-2.0
#include "analyzers/qcow2/recover/recover.h"

#include <fmt/format.h>

#include <algorithm>

#include "analyzers/qcow2/recover/candidates.h"
#include "analyzers/qcow2/recover/compose.h"
#include "analyzers/qcow2/recover/compression.h"
#include "analyzers/qcow2/recover/disk_size.h"
#include "analyzers/qcow2/recover/side_tables.h"
#include "analyzers/qcow2/rules.h"
#include "base/text.h"
#include "formats/common/tolerant.h"

namespace imgfsck::qcow2 {
namespace {

constexpr size_t kMostStoredTrials = 6, kMostScannedTrials = 12;
constexpr double kLeastQuality = 0.5;  // of what can be judged
constexpr double kDistance = 1.5;      // clusters by which an answer must be better than the next

bool SameMapping(const Layout& a, const Layout& b) {
  return a.cluster_bits == b.cluster_bits && a.extended_l2 == b.extended_l2 &&
         a.data_file == b.data_file && a.l1_offset == b.l1_offset;
}

// The guest's bytes are looked for elsewhere.
bool Remaps(const Header& a, const Header& b) {
  constexpr uint64_t kMapping = kIncompatExtendedL2 | kIncompatDataFile | kIncompatCompression;
  return a.cluster_bits != b.cluster_bits || a.size != b.size || a.l1_size != b.l1_size ||
         a.l1_table_offset != b.l1_table_offset || a.crypt_method != b.crypt_method ||
         ((a.incompatible_features ^ b.incompatible_features) & kMapping) != 0;
}

Layout StoredLayout(const Image& stored) {
  const Header& h = stored.header;
  Layout layout;
  layout.cluster_bits = h.cluster_bits;
  layout.refcount_order = std::min<unsigned>(h.refcount_order, kMaxRefcountOrder);
  layout.extended_l2 = stored.extended_l2();
  layout.data_file = stored.has_data_file();
  layout.rt_offset = h.refcount_table_offset;
  layout.rt_clusters = h.refcount_table_clusters;
  layout.l1_offset = h.l1_table_offset;
  layout.l1_entries = std::min<uint64_t>(h.l1_size, stored.active.entries);
  return layout;
}

class Recoverer {
 public:
  Recoverer(const ByteSource& source, const Image& stored, const CheckOptions& options)
      : source_(source),
        stored_(stored),
        options_(options),
        lens_(source),
        composer_(source, stored) {}

  Result<RecoveryResult> Run() {
    IMG_RETURN_IF_ERROR(BelieveStored());
    if (NeedsSearch()) IMG_RETURN_IF_ERROR(SearchFile());
    if (!best_ || best_->Gain() <= 0 || best_->Quality() < kLeastQuality) {
      result_.refusal = "no cluster size and no place of the tables makes the file add up";
      return std::move(result_);
    }
    if (rival_ && best_->Gain() - rival_->Gain() < kDistance * Unit()) {
      result_.refusal = fmt::format("two layouts fit about equally well: {}, or {}",
                                    Describe(best_->layout), Describe(rival_->layout));
      return std::move(result_);
    }
    IMG_ASSIGN_OR_RETURN(const bool better, BeatsStored());
    if (better) IMG_RETURN_IF_ERROR(Finish());
    return std::move(result_);
  }

 private:
  // A header that everybody can open the image with gives way to a clearly better one alone.
  Result<bool> BeatsStored() {
    if (HeaderIsRefused(stored_)) return true;
    IMG_ASSIGN_OR_RETURN(Trial stored, TryPrefix(source_, StoredLayout(stored_),
                                                 StoredBytesOf(kHeaderLengthCurrent), options_));
    return best_->Gain() - stored.Gain() >= kDistance * Unit();
  }

  double Unit() const { return static_cast<double>(best_->cluster_size()); }

  static std::string Describe(const Layout& l) {
    return fmt::format("clusters of {} bytes with the L1 table at {}",
                       uint64_t{1} << l.cluster_bits, Hex(l.l1_offset));
  }

  Result<Trial> Try(const Composer::Wish& wish) {
    return TryPrefix(source_, wish.layout, composer_.Compose(wish, nullptr), options_);
  }

  void Consider(Trial trial, const Look& below) {
    if (best_ && trial.Gain() <= best_->Gain()) {
      if (!SameMapping(trial.layout, best_->layout) && (!rival_ || trial.Gain() > rival_->Gain())) {
        rival_ = std::move(trial);
      }
      return;
    }
    if (best_ && !SameMapping(trial.layout, best_->layout)) rival_ = std::move(best_);
    best_ = std::move(trial);
    below_ = below;
  }

  Status BelieveStored() {
    trees_ = FindTrees(lens_, stored_, nullptr);
    IMG_ASSIGN_OR_RETURN(auto maps, StoredMaps(lens_, stored_, trees_));
    if (maps.size() > kMostStoredTrials) maps.resize(kMostStoredTrials);
    for (const Candidate& c : maps) {
      IMG_ASSIGN_OR_RETURN(Trial trial, Try({c.layout}));
      Consider(std::move(trial), c.map.below);
    }
    return Ok();
  }

  bool NeedsSearch() const {
    if (!best_ || best_->l1_contested) return true;
    if (best_->l2_tables == 0) return best_->leaked > 0;
    return !below_.Mostly() && best_->Quality() < 0.9;
  }

  Status SearchFile() {
    IMG_ASSIGN_OR_RETURN(ScanResult scan, ScanForTables(source_, options_.progress));
    trees_ = FindTrees(lens_, stored_, &scan);
    IMG_ASSIGN_OR_RETURN(auto maps, ScannedMaps(lens_, stored_, scan, trees_));
    if (maps.empty()) IMG_RETURN_IF_ERROR(LookForEmptyTable(&maps));
    if (maps.size() > kMostScannedTrials) maps.resize(kMostScannedTrials);
    for (const Candidate& c : maps) {
      IMG_ASSIGN_OR_RETURN(Trial trial, Try({c.layout}));
      if (!composer_.Trusts(c.layout)) {
        SideTables side = FindSideTables(source_, scan, trial);
        IMG_ASSIGN_OR_RETURN(trial, Try({c.layout, 0, &side}));
        side_.push_back({c.layout, std::move(side)});
      }
      Consider(std::move(trial), c.map.below);
    }
    return Ok();
  }

  // A disk without a mapping: its L1 table is the only thing counted that nothing refers to.
  Status LookForEmptyTable(std::vector<Candidate>* maps) {
    for (const Candidate& tree : trees_) {
      IMG_ASSIGN_OR_RETURN(Trial trial, Try({tree.layout}));
      if (trial.contradicted + trial.invalid != 0 || trial.leaks.size() != 1) continue;
      const CountRun& run = trial.leaks.front();
      uint64_t entries = run.length * trial.cluster_size() / 8;
      if (run.stored != 1 || entries * 8 > kMaxL1Bytes) continue;
      Candidate c = tree;
      c.layout.l1_offset = run.cluster << tree.layout.cluster_bits;
      c.layout.l1_entries = entries;
      maps->push_back(c);
    }
    return Ok();
  }

  const SideTables* SideOf(const Layout& layout) const {
    for (const auto& [of, side] : side_) {
      if (of == layout) return &side;
    }
    return nullptr;
  }

  Status Finish() {
    Composer::Wish wish{best_->layout, 0, SideOf(best_->layout)};
    Recovery r;
    Geometry g = best_->layout.geometry();
    bool believed = composer_.Trusts(best_->layout);
    bool size_fits = g.MinL1Entries(stored_.header.size) <= best_->layout.l1_entries &&
                     !MapsBehind(*best_->image, stored_.header.size);
    std::string size_text;
    DiskSize size = FindDiskSize(*best_->image);
    // Too few entries for the disk: one of the two is wrong, and a witness may know which.
    if (stored_.header.l1_size < g.MinL1Entries(stored_.header.size) && size.certain &&
        size.bytes != stored_.header.size) {
      size_fits = false;
      wish.layout.l1_entries = std::min<uint64_t>(wish.layout.l1_entries, stored_.header.l1_size);
    }
    if (!believed || !size_fits) {
      wish.size = size.bytes;
      r.size_guessed = !size.certain;
      size_text = "; disk size: " + size.evidence;
      // As many entries as the disk needs, where the table has them.
      wish.layout.l1_entries = std::max(wish.layout.l1_entries, g.MinL1Entries(size.bytes));
    }
    wish.compressed_zstd = !believed && ProbeCompression(*best_->image) == kZstd;
    ByteVector prefix = composer_.Compose(wish, &r.header);
    IMG_ASSIGN_OR_RETURN(Trial final_trial, TryPrefix(source_, wish.layout, prefix, options_));
    if (final_trial.Gain() < best_->Gain() - kDistance * Unit()) {
      result_.refusal = "the header that the tables ask for does not hold together";
      return Ok();
    }
    ByteVector now = StoredBytesOf(final_trial.view->prefix().size());
    if (now == final_trial.view->prefix()) return Ok();
    r.layout = wish.layout;
    r.remaps = Remaps(stored_.header, r.header);
    r.view = final_trial.view;
    now.resize(std::max<size_t>(now.size(), kHeaderLengthCurrent));
    r.changes = ChangesOf(now, r.view->prefix());
    r.whole = !believed;
    r.confidence = Confidence(final_trial);
    r.evidence = Evidence(final_trial) + size_text;
    if (r.whole) {
      r.notes.push_back(
          "what only the header said is lost: the backing file's name, if there was one (then "
          "ranges that are not allocated read as zeros), names of features and unknown extensions");
      if (wish.layout.data_file) {
        r.notes.push_back(
            "the name of the data file, which only the header said, is lost: QEMU has to be told "
            "it "
            "(data-file.filename=...)");
      }
    }
    result_.recovery = std::move(r);
    return Ok();
  }

  ByteVector StoredBytesOf(size_t length) const {
    ByteVector now(length);
    std::vector<HostRange> bad;
    ReadTolerant(source_, 0, now, &bad);
    return now;
  }

  double Confidence(const Trial& trial) const {
    double value = trial.Perfect() ? 0.99 : std::min(0.95, trial.Quality());
    return trial.layout.has_tree() ? value : value * 0.8;
  }

  std::string Evidence(const Trial& trial) const {
    std::string text = fmt::format("with clusters of {} bytes, {} L2 tables hang together",
                                   trial.cluster_size(), trial.l2_tables);
    if (!trial.layout.has_tree()) return text + "; no refcount table was found";
    return text + fmt::format(" and {} of {} clusters are counted as they are used",
                              trial.used - std::min(trial.used, trial.contradicted), trial.used);
  }

  const ByteSource& source_;
  const Image& stored_;
  const CheckOptions& options_;
  Lens lens_;
  Composer composer_;
  std::vector<Candidate> trees_;
  std::vector<std::pair<Layout, SideTables>> side_;
  std::optional<Trial> best_, rival_;
  Look below_;
  RecoveryResult result_;
};

// The L1 table shares bytes with another table that only the header leads to.
bool LiesOnOthers(const Image& image) {
  const Header& h = image.header;
  HostRange l1 = MakeHostRange(image.active.offset, image.active.bytes());
  return l1.length != 0 &&
         (l1.Overlaps(MakeHostRange(0, image.geometry.cluster_size)) ||
          l1.Overlaps(MakeHostRange(h.refcount_table_offset, image.refcount_table.size() * 8)));
}

}  // namespace

bool HeaderIsUseless(const ByteSource& source, const Image& stored) {
  const Header& h = stored.header;
  if (!stored.walkable) return true;
  if (stored.geometry.extended_l2 && h.cluster_bits < kMinClusterBitsExtendedL2) return true;
  if (h.l1_size == 0 && h.size == 0) return false;
  if (LiesOnOthers(stored)) return true;
  if (h.version == 2 && Composer(source, stored).HasVersion3Fields()) return true;
  Layout layout = StoredLayout(stored);
  Lens lens(source);
  bool counted = layout.rt_clusters * stored.geometry.cluster_size <= kMaxRefcountTableBytes &&
                 lens.Tree(layout).Mostly();
  if (!counted) {
    // Counts that are gone are written anew. But there may be sound ones, for other clusters.
    layout.rt_offset = layout.rt_clusters = 0;
    auto others = FindTrees(lens, stored, nullptr);
    if (std::ranges::any_of(others, [&](const Candidate& c) {
          return c.layout.cluster_bits != layout.cluster_bits;
        })) {
      return true;
    }
  }
  MapLook map = lens.Map(layout);
  return !map.table.Mostly() || (map.below.asked > 0 && !map.below.Mostly());
}

Result<RecoveryResult> RecoverHeader(const ByteSource& source, const Image& stored,
                                     const CheckOptions& options) {
  return Recoverer(source, stored, options).Run();
}

}  // namespace imgfsck::qcow2
