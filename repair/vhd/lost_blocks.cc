// SPDX-License-Identifier: Apache-2.0
#include "repair/vhd/lost_blocks.h"

#include <algorithm>

#include "base/checked.h"
#include "base/interrupt.h"
#include "formats/common/tolerant.h"
#include "formats/vhd/mapping.h"

namespace imgfsck::vhd {
namespace {

constexpr uint64_t kAlignment = 4096;  // libvhd and tapdisk put a block's data there

class Finder {
 public:
  Finder(const Image& image, const std::vector<Block>& blocks) : image_(image), blocks_(blocks) {
    auto is_aligned = [&](const Block& b) {
      return (b.offset() + image.bitmap_bytes) % kAlignment == 0;
    };
    aligned_ = !blocks.empty() && std::ranges::all_of(blocks, is_aligned);
  }

  Result<std::vector<LostBlocks>> Run() {
    uint64_t at = 0, done = 0;
    auto region = image_.regions.begin();
    auto pass_regions = [&](uint64_t limit) {
      for (; region != image_.regions.end() && region->offset < limit; ++region) {
        GapBetween(at, region->offset);
        at = std::max(at, region->end());
      }
    };
    for (const Block& block : blocks_) {
      if (++done % 4096 == 0) IMG_RETURN_IF_ERROR(CheckStop());
      pass_regions(block.offset());
      GapBetween(at, block.offset());
      at = std::max(at, block.offset() + image_.BlockLength());
    }
    pass_regions(image_.DataEnd());
    GapBetween(at, image_.DataEnd());
    return std::move(found_);
  }

 private:
  void GapBetween(uint64_t begin, uint64_t end) {
    if (end < begin + image_.BlockLength()) return;
    HostRange gap = MakeHostRange(begin, end - begin);
    if (ClassifyContent(image_, gap) == Content::kData) Look(gap);
  }

  void Look(const HostRange& gap) {
    const uint64_t length = image_.BlockLength(), begin = gap.offset.value;
    if (gap.length % length == 0) {
      found_.push_back({begin, gap.length / length, length});
    } else if (!aligned_ || !LookAligned(gap)) {
      const uint64_t blocks = gap.length / length;
      const uint64_t last = AlignDown(gap.end() - blocks * length, kSectorSize);
      if (AreBlocks(begin, blocks)) {
        found_.push_back({begin, blocks, length});
      } else if (last != begin && AreBlocks(last, blocks)) {
        found_.push_back({last, blocks, length});
      }
    }
  }

  // Whole blocks with nothing but alignment between and around them.
  bool LookAligned(const HostRange& gap) {
    const uint64_t stride = AlignUp(image_.BlockLength(), kAlignment);
    const uint64_t first =
        AlignUp(gap.offset.value + image_.bitmap_bytes, kAlignment) - image_.bitmap_bytes;
    if (first + image_.BlockLength() > gap.end()) return false;
    const uint64_t blocks = (gap.end() - first + stride - image_.BlockLength()) / stride;
    const uint64_t end = first + (blocks - 1) * stride + image_.BlockLength();
    if (end > gap.end() || gap.end() - end >= kAlignment) return false;
    found_.push_back({first, blocks, stride});
    return true;
  }

  bool AreBlocks(uint64_t offset, uint64_t blocks) {
    for (uint64_t i = 0; i < blocks; ++i) {
      if (!IsBlock(offset + i * image_.BlockLength())) return false;
    }
    return true;
  }

  // A bitmap with bits, behind it sectors that are zero wherever their bit is.
  bool IsBlock(uint64_t offset) {
    const uint64_t sectors = image_.block_size / kSectorSize;
    ByteVector bitmap(image_.bitmap_bytes), data;
    std::vector<HostRange> bad;
    ReadTolerant(*image_.source, offset, bitmap, &bad);
    if (bitmap.empty() || !bad.empty() || AllZero(bitmap)) return false;
    Bytes padding = Bytes(bitmap).subspan(DivRoundUp(sectors, 8));
    bool filler = std::ranges::all_of(padding, [&](uint8_t b) { return b == 0; }) ||
                  std::ranges::all_of(padding, [&](uint8_t b) { return b == 0xFF; });
    if (!filler) return false;
    for (uint64_t from = 0; from < sectors;) {
      uint64_t to = BitRunEnd(bitmap, from, sectors);
      uint64_t at = offset + image_.bitmap_bytes + from * kSectorSize;
      if (!BitAt(bitmap, from) &&
          ClassifyContent(image_, MakeHostRange(at, (to - from) * kSectorSize)) != Content::kZero) {
        return false;
      }
      from = to;
    }
    return true;
  }

  const Image& image_;
  const std::vector<Block>& blocks_;
  bool aligned_ = false;
  std::vector<LostBlocks> found_;
};

}  // namespace

Result<std::vector<LostBlocks>> FindLostBlocks(const Image& image,
                                               const std::vector<Block>& blocks) {
  return Finder(image, blocks).Run();
}

}  // namespace imgfsck::vhd
