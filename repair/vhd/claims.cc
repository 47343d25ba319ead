// SPDX-License-Identifier: Apache-2.0
#include "repair/vhd/claims.h"

#include <algorithm>
#include <map>
#include <optional>

namespace imgfsck::vhd {
namespace {

class ClaimJudge {
 public:
  ClaimJudge(const Image& image, const std::vector<Block>& blocks)
      : image_(image), blocks_(blocks), grid_(FindGrid()) {}

  std::vector<Loser> Run() {
    for (const Block& block : blocks_) {
      if (stays_ && block.offset() < stays_->offset() + image_.BlockLength()) {
        Contest(block);
      } else {
        Keep(block);
      }
    }
    AddCutOffGrid();
    return std::move(losers_);
  }

 private:
  // Nearly all blocks lie a whole number of blocks apart: which remainder is theirs.
  std::optional<uint64_t> FindGrid() const {
    constexpr size_t kEnough = 4096;
    std::map<uint64_t, size_t> votes;
    size_t step = std::max<size_t>(1, blocks_.size() / kEnough), asked = 0;
    for (size_t i = 0; i < blocks_.size(); i += step, ++asked) ++votes[Remainder(blocks_[i])];
    auto most = std::ranges::max_element(votes, {}, [](auto& vote) { return vote.second; });
    bool clear = most != votes.end() && asked > 2 && most->second * 10 >= asked * 6;
    return clear ? std::optional(most->first) : std::nullopt;
  }
  uint64_t Remainder(const Block& block) const { return block.offset() % image_.BlockLength(); }

  // More is better: a place among the others, and the right neighbours there.
  int Merit(const Block& block) const {
    constexpr int kOnGrid = 4;
    return NeighbourFit(image_, block) + (grid_ && Remainder(block) == *grid_ ? kOnGrid : 0);
  }

  void Keep(const Block& block) {
    stays_ = block;
    merit_.reset();
  }
  void Contest(const Block& block) {
    if (!merit_) merit_ = Merit(*stays_);
    int mine = Merit(block);
    if (mine > *merit_) {
      losers_.push_back({*stays_, true, true});
      Keep(block);
    } else {
      losers_.push_back({block, true, mine < *merit_});
    }
  }

  void AddCutOffGrid() {
    if (!grid_) return;
    std::vector<Block> known;
    for (const Loser& loser : losers_) known.push_back(loser.block);
    std::ranges::sort(known);
    for (const Block& block : blocks_) {
      bool cut = block.offset() + image_.BlockLength() > image_.DataEnd();
      if (cut && Remainder(block) != *grid_ && !std::ranges::binary_search(known, block)) {
        losers_.push_back({block, false, true});
      }
    }
  }

  const Image& image_;
  const std::vector<Block>& blocks_;
  const std::optional<uint64_t> grid_;
  std::optional<Block> stays_;
  std::optional<int> merit_;  // of what stays, once somebody asked
  std::vector<Loser> losers_;
};

}  // namespace

std::vector<Loser> JudgeClaims(const Image& image, const std::vector<Block>& blocks) {
  return ClaimJudge(image, blocks).Run();
}

}  // namespace imgfsck::vhd
