// SPDX-License-Identifier: Apache-2.0
// Scores every layout against the header and the file's length (sheet cow, section 1). One damaged
// field costs points but does not decide, so that damage is found in the layout it happened to.
#include <algorithm>

#include "formats/cow/header.h"

namespace imgfsck::cow {
namespace {

constexpr int kEnough = 70;  // points below which no layout explains the file
constexpr int kMargin = 20;  // by which the best has to beat the next

int ScoreVersion(const Header& h, Bytes bytes) {
  int score = h.magic_found ? 10 : 0;
  if (h.endian_mismatch()) score -= 25;
  if (h.version == h.spec().version) score += 40;
  // Where the version usually stands, the long layout has zeros.
  if (h.layout == LayoutId::kUml2Long &&
      !AllZero(bytes.first(std::min<size_t>(8, bytes.size()))
                   .subspan(std::min<size_t>(4, bytes.size())))) {
    score -= 40;
  }
  return score;
}

bool IsText(const std::string& path) {
  return std::none_of(path.begin(), path.end(), [](char c) { return c >= 0 && c < ' '; });
}

int ScorePath(const Header& h) {
  if (!h.path_terminated) return -20;
  int score = 10;
  if (!IsText(h.path)) return score - 10;
  if (!h.path.empty()) score += 10;
  if (h.path.starts_with('/')) score += 5;
  return score;
}

int ScoreNumbers(const Header& h) {
  int score = !SectorSizeIsSane(h.sectorsize) ? -30 : h.sectorsize == kSectorSize ? 30 : 20;
  if (h.spec().qemu && h.sectorsize != kSectorSize) score -= 10;
  if (h.size == 0) {
    score -= 20;
  } else {
    score += h.size < (uint64_t{1} << 62) ? 20 : -30;
  }
  if (h.spec().alignment_offset != 0) {
    score += AlignmentIsSane(h.alignment, h.sectorsize) ? 10 : -20;
    if (h.alignment == kPageAlignment) score += 5;
    score += h.cow_format == 0 ? 5 : -10;
  }
  return score;
}

int ScoreLength(const Header& h, uint64_t file_size) {
  if (file_size < h.spec().header_length) return -50;
  Geometry g = h.geometry();
  if (!g.valid || g.virtual_size == 0) return 0;
  int score = file_size >= g.bitmap_end() ? 5 : 0;
  uint64_t end = AlignUp(g.data_end(), g.sector_size);
  if (h.spec().qemu) return file_size >= g.bitmap_end() && file_size <= end ? score + 25 : score;
  return file_size >= g.data_end() && file_size <= end ? score + 40 : score;
}

// What tells the two forms of version 3 apart: zeros where one has its path, the other cow_format.
int ScoreForm(const Header& h, Bytes bytes) {
  if (h.spec().version != 3 || bytes.size() < 36) return 0;
  bool zeros = AllZero(bytes.subspan(32, 4));
  return zeros == (h.layout == LayoutId::kUml3Broken) ? 15 : -15;
}

bool SameMapping(const Header& a, const Header& b) {
  Geometry x = a.geometry(), y = b.geometry();
  return x.valid && y.valid && x.virtual_size == y.virtual_size &&
         x.bitmap_offset == y.bitmap_offset && x.data_offset == y.data_offset;
}

}  // namespace

Resolution ResolveLayout(Bytes bytes, uint64_t file_size) {
  Resolution resolution;
  for (const Layout& layout : kLayouts) {
    for (bool little : {false, true}) {
      if (little && !layout.host_order()) continue;
      Candidate c{ParseHeaderAs(layout.id, little, bytes), 0};
      c.score = ScoreVersion(c.header, bytes) + ScorePath(c.header) + ScoreNumbers(c.header) +
                ScoreLength(c.header, file_size) + ScoreForm(c.header, bytes);
      resolution.candidates.push_back(std::move(c));
    }
  }
  auto& all = resolution.candidates;
  std::stable_sort(all.begin(), all.end(),
                   [](const Candidate& a, const Candidate& b) { return a.score > b.score; });
  resolution.clear = all[0].score >= kEnough;
  for (size_t i = 1; i < all.size() && all[i].score + kMargin > all[0].score; ++i) {
    ++resolution.contenders;
    if (!SameMapping(all[0].header, all[i].header)) resolution.clear = false;
  }
  return resolution;
}

}  // namespace imgfsck::cow
