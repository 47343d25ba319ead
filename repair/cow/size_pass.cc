// SPDX-License-Identifier: Apache-2.0
// Works the disk size out again where the file contradicts the header: from the backing file, which
// a new COW file is as large as, and from the file's own length. Nothing but the size field is
// written, and only when everything else then fits.
#include <fmt/format.h>

#include <algorithm>

#include "analyzers/cow/rules.h"
#include "repair/cow/passes.h"

namespace imgfsck::cow {
namespace {

// User-Mode Linux gives a new file its full length at once, so that the length tells the size:
// where the data begins grows with the size, hence at most one whole number of sectors fits.
std::optional<uint64_t> SizeFromLength(Header header, uint64_t file_size) {
  if (header.spec().qemu || !SectorSizeIsSane(header.sectorsize)) return std::nullopt;
  auto end = [&header](uint64_t sectors) {
    header.size = sectors * header.sectorsize;
    const Geometry g = header.geometry();
    return g.valid ? g.data_end() : UINT64_MAX;
  };
  uint64_t low = 0, high = file_size / header.sectorsize;
  while (low < high) {
    const uint64_t middle = low + (high - low) / 2;
    end(middle) < file_size ? low = middle + 1 : high = middle;
  }
  if (low == 0 || end(low) != file_size) return std::nullopt;
  return low * header.sectorsize;
}

// How well the file is as this header says.
enum class Fit {
  kNot,
  kCut,    // but for what may be missing at its end
  kWhole,  // whole bitmap, no marks behind the disk, all data, nothing after it
};

Result<Fit> Judge(const ByteSource& source, const Header& header) {
  const std::unique_ptr<Image> image = ImageAs(source, header);
  const Geometry& g = image->geometry;
  if (!image->walkable || g.virtual_size == 0 || g.data_offset >= kMaxDataOffset ||
      source.Size() < g.bitmap_end() || source.Size() > AlignUp(g.data_end(), g.sector_size)) {
    return Fit::kNot;
  }
  CheckState state;
  state.image = image.get();
  CheckReport report;
  IMG_RETURN_IF_ERROR(JudgeBitmap(state, &report));
  if (report.findings.Has(Problem::kCowBitmapBitsPastSize)) return Fit::kNot;
  const bool cut = (!header.spec().qemu && source.Size() < g.data_end()) ||
                   report.findings.Has(Problem::kCowDataBeyondEof) ||
                   report.findings.Has(Problem::kImageUnreadable);
  return cut ? Fit::kCut : Fit::kWhole;
}

// A size that could be the one, and how well the file bears it out.
struct Proposal {
  Header header;
  Fit fit = Fit::kNot;
  bool by_base = false;
};

}  // namespace

Result<PassOutcome> RepairSize(const PassContext& context) {
  PassOutcome outcome;
  const CheckState& state = StateOf(context.report);
  const Image& image = *state.image;
  if (image.file_size < image.header.spec().header_length) return outcome;
  Fit now = Fit::kNot;
  std::vector<Proposal> proposals;
  for (size_t i = 0; i < (image.layouts.clear ? 1 : image.layouts.contenders); ++i) {
    Header header = image.layouts.clear ? image.header : image.layouts.candidates[i].header;
    IMG_ASSIGN_OR_RETURN(const Fit as_it_is, Judge(context.image, header));
    now = std::max(now, as_it_is);
    const bool by_base = state.base.state == LinkedFile::State::kPresent && state.base.regular &&
                         header.path == image.header.path;
    const std::optional<uint64_t> size =
        by_base ? state.base.size : SizeFromLength(header, image.file_size);
    if (!size || *size == header.size) continue;
    header.size = *size;
    IMG_ASSIGN_OR_RETURN(const Fit fit, Judge(context.image, header));
    if (fit == Fit::kWhole || (fit == Fit::kCut && by_base)) {
      proposals.push_back({std::move(header), fit, by_base});
    }
  }
  // A size that is no better than the one at hand is not put in its place.
  std::erase_if(proposals, [now](const Proposal& p) { return p.fit <= now; });
  if (proposals.size() != 1) return outcome;
  const Proposal& found = proposals.front();
  IMG_RETURN_IF_ERROR(WriteHeader(context.image, found.header));
  ++outcome.changes;
  outcome.particulars.push_back(fmt::format(
      "the disk has {} bytes, not {}: {}{}", found.header.size, image.header.size,
      found.by_base ? "so many has the backing file" : "then the file ends with its data",
      found.by_base && found.fit == Fit::kWhole ? ", and then the file ends with its data" : ""));
  const uint64_t size = std::max(found.header.size, image.geometry.virtual_size);
  outcome.changed.push_back({std::string(kActiveLayer), MakeGuestRange(0, size)});
  return outcome;
}

}  // namespace imgfsck::cow
