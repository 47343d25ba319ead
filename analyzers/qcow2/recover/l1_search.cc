// SPDX-License-Identifier: Apache-2.0
#include "analyzers/qcow2/recover/l1_search.h"

#include <algorithm>

#include "base/interrupt.h"
#include "formats/common/tolerant.h"

namespace imgfsck::qcow2 {
namespace {

constexpr uint64_t kTargetsTried = 8;  // entries of a cluster that are followed
constexpr size_t kMostStarts = 4096, kMostTogether = 64, kMostCandidates = 8;

class Search {
 public:
  Search(Lens& lens, const ScanResult& scan, const Layout& layout, const std::set<uint64_t>& known,
         uint64_t entries_wanted)
      : lens_(lens),
        scan_(scan),
        layout_(layout),
        g_(layout.geometry()),
        known_(known),
        wanted_(entries_wanted) {}

  Result<std::vector<L1Candidate>> Run() {
    IMG_RETURN_IF_ERROR(FindClusters());
    for (size_t i = 0; i < clusters_.size() && starts_ < kMostStarts;) {
      size_t end = i + 1;
      while (end < clusters_.size() && Together(clusters_[end - 1], clusters_[end])) ++end;
      AddRunOf(i, end);
      i = end;
    }
    std::stable_sort(found_.begin(), found_.end(),
                     [](const auto& a, const auto& b) { return Worth(a) > Worth(b); });
    if (found_.size() > kMostCandidates) found_.resize(kMostCandidates);
    return std::move(found_);
  }

 private:
  static double Worth(const L1Candidate& c) {
    uint64_t asked = c.look.table.asked + c.look.below.asked;
    uint64_t held = c.look.table.held + c.look.below.held;
    return static_cast<double>(held) - 2 * static_cast<double>(asked - held);
  }

  bool Counted(uint64_t cluster) {
    return !layout_.has_tree() || lens_.Count(layout_, cluster) == 1;
  }

  // Entries of an L1 table, and a share of them leads to tables.
  bool LooksLikeL1(uint64_t cluster) {
    bytes_.resize(g_.cluster_size);
    std::vector<HostRange> bad;
    ReadTolerant(lens_.reader().source(), cluster << g_.cluster_bits, bytes_, &bad);
    uint64_t used = 0, wrong = 0, followed = 0, tables = 0;
    for (size_t i = 0; i + 8 <= bytes_.size(); i += 8) {
      uint64_t value = LoadBe<uint64_t>(&bytes_[i]);
      if (value == 0) continue;
      ++used;
      uint64_t offset = value & kOffsetMask;
      if ((value & kL1Reserved) != 0 || !IsAligned(offset, g_.cluster_size) ||
          offset >= lens_.file_size()) {
        if (++wrong * 8 > used + 8) return false;
        continue;
      }
      if (followed == kTargetsTried) continue;
      ++followed;
      tables += scan_.RunAt(offset, g_.cluster_size) != nullptr;
      if (followed == 4 && tables == 0) return false;
    }
    return wrong * 8 <= used && tables * 2 >= followed && tables > 0;
  }

  Status FindClusters() {
    uint64_t last = ~uint64_t{0};
    for (const TableRun& run : scan_.runs) {
      if ((run.forms & kFormL1) == 0) continue;
      for (uint64_t c = run.offset >> g_.cluster_bits; c << g_.cluster_bits < run.end(); ++c) {
        if (c == last || c == 0) continue;
        last = c;
        if (!known_.contains(c) && Counted(c) && LooksLikeL1(c)) clusters_.push_back(c);
      }
      IMG_RETURN_IF_ERROR(CheckStop());
    }
    return Ok();
  }

  // What lies between two parts of one table is counted and zero.
  bool Together(uint64_t a, uint64_t b) {
    if (b - a > kMostTogether) return false;
    for (uint64_t c = a + 1; c < b; ++c) {
      if (known_.contains(c) || !Counted(c) || scan_.RunAt(c << g_.cluster_bits, g_.cluster_size)) {
        return false;
      }
    }
    return true;
  }

  // The whole run as one table, and every part of it that begins at one of its first clusters.
  void AddRunOf(size_t begin, size_t end) {
    size_t most = std::min<size_t>(end - begin, 8);
    for (size_t first = begin; first < begin + most; ++first) {
      Add(clusters_[first], clusters_[end - 1]);
      if (end - first <= 1) continue;
      for (size_t last = first; last < std::min(first + most, end - 1); ++last) {
        Add(clusters_[first], clusters_[last]);
      }
    }
    ++starts_;
  }

  void Add(uint64_t first, uint64_t last) {
    uint64_t entries = (last - first + 1) * g_.cluster_size / 8;
    uint64_t offset = first << g_.cluster_bits;
    while (entries > 1 && lens_.reader().Word(offset + 8 * (entries - 1)) == 0) --entries;
    // What the size asks for, as far as the clusters behind are counted and zero.
    if (wanted_ > entries) {
      uint64_t need = DivRoundUp(wanted_ * 8, g_.cluster_size);
      if (!Together(last, first + need)) return AddEntries(offset, entries);
      entries = wanted_;
    }
    AddEntries(offset, entries);
  }

  void AddEntries(uint64_t offset, uint64_t entries) {
    if (entries * 8 > kMaxL1Bytes) return;
    L1Candidate candidate{layout_, {}};
    candidate.layout.l1_offset = offset;
    candidate.layout.l1_entries = entries;
    candidate.look = lens_.Map(candidate.layout);
    if (candidate.look.table.Mostly()) found_.push_back(candidate);
  }

  Lens& lens_;
  const ScanResult& scan_;
  const Layout& layout_;
  Geometry g_;
  const std::set<uint64_t>& known_;
  uint64_t wanted_;
  std::vector<uint64_t> clusters_;  // that look like a part of an L1 table, ascending
  size_t starts_ = 0;
  std::vector<L1Candidate> found_;
  ByteVector bytes_;
};

}  // namespace

Result<std::vector<L1Candidate>> FindL1Tables(Lens& lens, const ScanResult& scan,
                                              const Layout& layout, const std::set<uint64_t>& known,
                                              uint64_t entries_wanted) {
  return Search(lens, scan, layout, known, entries_wanted).Run();
}

}  // namespace imgfsck::qcow2
