// SPDX-License-Identifier: Apache-2.0
#include "formats/vhd/salvage.h"

#include <algorithm>
#include <array>
#include <bit>
#include <string>
#include <vector>

#include "base/checked.h"
#include "formats/vhd/encode.h"
#include "formats/vhd/infer.h"

namespace imgfsck::vhd {
namespace {

struct Span {
  uint64_t at, length;
};
// What is damaged together, or not.
constexpr std::array kFields = {Span{footer_at::kFeatures, 4},
                                Span{footer_at::kVersion, 4},
                                Span{footer_at::kDataOffset, 8},
                                Span{footer_at::kTimestamp, 4},
                                Span{footer_at::kCreatorApp, 4},
                                Span{footer_at::kCreatorVersion, 4},
                                Span{footer_at::kCreatorOs, 4},
                                Span{footer_at::kOriginalSize, 8},
                                Span{footer_at::kCurrentSize, 8},
                                Span{footer_at::kCylinders, 4},
                                Span{footer_at::kDiskType, 4},
                                Span{footer_at::kChecksum, 4},
                                Span{footer_at::kUniqueId, 16},
                                Span{footer_at::kSavedState, 1},
                                Span{footer_at::kHidden, 1},
                                Span{footer_at::kReserved, kFooterSize - footer_at::kReserved}};

class Fitter {
 public:
  explicit Fitter(Image* image) : image_(*image), footer_(image->footer) {}

  std::string Run() {
    FitType();
    Set(&footer_.version, kVersion1, "version");
    if ((footer_.features & ~kFeatureTemporary) != kFeatureReserved) {
      Set(&footer_.features, kFeatureReserved, "features");
    }
    FitSize();
    FitGeometry();
    if (footer_.saved_state > 1) Set(&footer_.saved_state, uint8_t{0}, "saved state");
    if (footer_.hidden > 1) Set(&footer_.hidden, uint8_t{0}, "hidden");
    auto reserved = footer_.raw.begin() + footer_at::kReserved;
    if (std::any_of(reserved, footer_.raw.end(), [](uint8_t b) { return b != 0; })) {
      std::fill(reserved, footer_.raw.end(), uint8_t{0});
      Say("reserved bytes");
    }
    return said_;
  }

 private:
  void Say(std::string_view name) {
    said_ += said_.empty() ? "" : ", ";
    said_ += name;
  }
  template <class T>
  void Set(T* field, T value, std::string_view name) {
    if (*field == value) return;
    *field = value;
    Say(name);
  }

  void FitType() {
    DiskType type = image_.kind == Kind::kFixed     ? DiskType::kFixed
                    : image_.kind == Kind::kDynamic ? DiskType::kDynamic
                                                    : DiskType::kDifferencing;
    Set(&footer_.disk_type, static_cast<uint32_t>(type), "disk type");
    bool as_printed = !image_.sparse() && footer_.data_offset == kNoOffsetOfSpec;
    if (as_printed) return;
    Set(&footer_.data_offset, image_.sparse() ? image_.header_offset : kNoOffset, "data offset");
  }

  bool SizeFits(uint64_t size) const {
    if (size == 0 || !IsAligned(size, kSectorSize)) return false;
    if (!image_.sparse()) return size == image_.DataEnd();
    if (image_.header_state != SlotState::kSound) return size / kSectorSize <= kMaxSectors;
    uint64_t needed = DivRoundUp(size, image_.block_size);
    return needed <= image_.bat_entries && needed + 2 > image_.bat_entries;
  }

  void FitSize() {
    if (SizeFits(footer_.current_size)) return;
    uint64_t chs = ChsBytes(footer_);
    if (SizeFits(footer_.original_size)) {
      footer_.current_size = footer_.original_size;
    } else if (SizeFits(chs) && !IsSaturated(footer_.geometry)) {
      footer_.current_size = chs;
    } else {
      footer_.current_size =
          image_.sparse() ? InferDiskSize(image_).value : AlignDown(image_.DataEnd(), kSectorSize);
    }
    Say("size");
  }

  void FitGeometry() {
    uint64_t sectors = footer_.current_size / kSectorSize, chs = footer_.geometry.Sectors();
    Geometry right = GeometryFor(sectors);
    uint64_t cylinder = uint64_t{right.heads} * right.sectors_per_track;
    bool fits = chs <= sectors && chs + cylinder >= right.Sectors();
    if (IsSaturated(footer_.geometry) || fits) return;
    Set(&footer_.geometry, right, "geometry");
  }

  const Image& image_;
  Footer& footer_;
  std::string said_;
};

}  // namespace

bool LooksReasonable(const Footer& f) {
  return f.version == kVersion1 && f.disk_type <= 6 && f.current_size != 0;
}

Footer WithCookie(const Footer& footer) {
  auto raw = footer.raw;
  std::ranges::copy(AsBytes(kFooterCookie), raw.begin());
  return ParseFooter(raw);
}

std::optional<Footer> CorrectFooter(const Footer& damaged) {
  std::optional<Footer> best;
  int best_edits = 100;
  auto try_one = [&](Footer f, int edits) {
    if (edits >= best_edits) return;
    uint32_t stored = f.checksum;
    Seal(&f);
    if (f.checksum != stored || !LooksReasonable(f)) return;
    best = f;
    best_edits = edits;
  };
  const Footer base = WithCookie(damaged);
  for (int choice = 0; choice < 3 * 4 * 2 * 2 * 3 * 2; ++choice) {
    Footer f = base;
    int edits = 0, rest = choice;
    auto pick = [&](int options) {
      int chosen = rest % options;
      rest /= options;
      edits += chosen != 0;
      return chosen;
    };
    if (int c = pick(3)) f.data_offset = c == 1 ? kFooterSize : kNoOffset;
    if (int c = pick(4)) f.disk_type = static_cast<uint32_t>(c + 1);
    if (pick(2)) f.features = kFeatureReserved;
    if (pick(2)) f.version = kVersion1;
    if (int c = pick(3))
      (c == 1 ? f.current_size : f.original_size) = c == 1 ? f.original_size : f.current_size;
    if (pick(2)) f.geometry = GeometryFor(f.current_size / kSectorSize);
    try_one(f, edits);
  }
  return best;
}

std::optional<Footer> MergeFooters(const Footer& a, const Footer& b) {
  const Footer base = WithCookie(a);
  std::vector<Span> differing;
  for (const Span& field : kFields) {
    auto from = static_cast<ptrdiff_t>(field.at),
         to = static_cast<ptrdiff_t>(field.at + field.length);
    if (!std::equal(a.raw.begin() + from, a.raw.begin() + to, b.raw.begin() + from)) {
      differing.push_back(field);
    }
  }
  constexpr size_t kMost = 12;  // 4096 sums
  if (differing.size() > kMost) return std::nullopt;
  for (uint32_t choice = 0; choice < 1u << differing.size(); ++choice) {
    auto raw = base.raw;
    for (size_t i = 0; i < differing.size(); ++i) {
      if ((choice >> i & 1) == 0) continue;
      std::copy_n(b.raw.begin() + static_cast<ptrdiff_t>(differing[i].at), differing[i].length,
                  raw.begin() + static_cast<ptrdiff_t>(differing[i].at));
    }
    Footer merged = ParseFooter(raw);
    if (merged.ChecksumValid() && LooksReasonable(merged)) return merged;
  }
  return std::nullopt;
}

void FitFooterToFile(Image* image) {
  std::string said = Fitter(image).Run();
  if (said.empty()) return;
  image->footer_from = {Origin::kInferred, kChecksumWrong,
                        "its checksum is wrong; made to fit the file: " + said};
}

}  // namespace imgfsck::vhd
