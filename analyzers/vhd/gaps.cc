// SPDX-License-Identifier: Apache-2.0
// Row 53: space between and behind the blocks that nothing uses. What it holds is read only by a
// deep check, and by the repair before it gives anything back.
#include <fmt/format.h>

#include <algorithm>

#include "analyzers/vhd/rules.h"
#include "base/checked.h"
#include "base/interrupt.h"
#include "formats/common/tolerant.h"

namespace imgfsck::vhd {
namespace {

constexpr uint64_t kPiece = kMiB;

bool IsOldFooter(const Image& image, Bytes sector) {
  if (AsText(sector.first(8)) != kFooterCookie) return false;
  Footer footer = ParseFooter(sector);
  return footer.ChecksumValid() && footer.unique_id == image.footer.unique_id;
}

Content ClassifySector(const Image& image, Bytes sector) {
  if (AllZero(sector)) return Content::kZero;
  bool filler = std::ranges::all_of(sector, [](uint8_t b) { return b == 0 || b == 0xFF; });
  if (filler) return Content::kFiller;
  if (sector.size() == kSectorSize && IsOldFooter(image, sector)) return Content::kSuperseded;
  return Content::kData;
}

std::string ContentText(const Image& image, const Gap& gap) {
  switch (gap.content) {
    case Content::kUnknown:
      return "";
    case Content::kZero:
      return "all zero";
    case Content::kFiller:
      return "nothing but 00 and FF";
    case Content::kSuperseded:
      return "zeros and old footers of this disk";
    case Content::kData:
      break;
  }
  uint64_t blocks = gap.host.length / image.BlockLength();
  if (blocks * image.BlockLength() == gap.host.length) {
    return fmt::format("data, exactly as long as {} block{}", blocks, blocks == 1 ? "" : "s");
  }
  return "data";
}

}  // namespace

Content ClassifyContent(const Image& image, HostRange host) {
  Content content = Content::kZero;
  ByteVector buffer;
  std::vector<HostRange> bad;
  for (uint64_t at = host.offset.value; at < host.end();) {
    uint64_t length = std::min(kPiece, host.end() - at);
    auto extent = image.source->ExtentAt(at);
    if (extent && extent->hole && extent->length > 0) {
      at += std::min(extent->length, host.end() - at);
      continue;
    }
    buffer.resize(length);
    ReadTolerant(*image.source, at, buffer, &bad);
    if (!bad.empty()) return Content::kData;
    for (uint64_t i = 0; i < length; i += kSectorSize) {
      Bytes sector = Bytes(buffer).subspan(i, std::min(kSectorSize, length - i));
      content = std::max(content, ClassifySector(image, sector));
    }
    if (content == Content::kData) return content;
    at += length;
  }
  return content;
}

Status JudgeGaps(const CheckOptions& options, CheckState* state, Findings* out) {
  const Image& image = *state->image;
  uint64_t at = 0;
  auto gap_before = [&](uint64_t next) {
    if (next <= at) return;
    Gap gap{MakeHostRange(at, next - at), Content::kUnknown};
    bool small = gap.host.length <= kSmallGap;
    if (small && !options.deep) return;
    if (options.deep) {
      gap.content = ClassifyContent(image, gap.host);
      if (small && gap.content <= Content::kFiller) return;
    }
    if (state->gaps.size() < kMaxGaps) {
      state->gaps.push_back(gap);
    } else {
      state->gaps_complete = false;
    }
    Finding f = At(Problem::kVhdBatLeakedSpace, "file", at, next - at, ContentText(image, gap));
    uint64_t blocks = gap.host.length / image.BlockLength();
    f.count = std::max<uint64_t>(blocks, 1);
    if (gap.content == Content::kData) f.repair = RepairClass::kNone;
    out->Add(std::move(f));
  };
  size_t region = 0;
  auto pass_regions = [&](uint64_t limit) {
    for (; region < image.regions.size() && image.regions[region].offset < limit; ++region) {
      gap_before(image.regions[region].offset);
      at = std::max(at, image.regions[region].end());
    }
  };
  uint64_t done = 0;
  for (const Block& block : state->blocks) {
    if (++done % 4096 == 0) IMG_RETURN_IF_ERROR(CheckStop());
    pass_regions(block.offset());
    gap_before(block.offset());
    at = std::max(at, block.offset() + image.BlockLength());
  }
  pass_regions(image.DataEnd());
  gap_before(image.DataEnd());
  return Ok();
}

}  // namespace imgfsck::vhd
