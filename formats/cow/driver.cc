// SPDX-License-Identifier: Apache-2.0
#include "formats/cow/driver.h"

#include <fmt/format.h>

#include <algorithm>

#include "formats/cow/create.h"
#include "formats/cow/walk.h"

namespace imgfsck::cow {
namespace {

Status Refuse(std::string why) { return Error{ErrorCode::kInvalid, std::move(why), {}}; }

Status CheckOpenable(const Image& image) {
  const Header& h = image.header;
  const Geometry& g = image.geometry;
  if (!h.magic_found) return Refuse("not a COW image");
  if (h.version != h.spec().version) return Refuse("the header names an unknown version");
  if (!image.layouts.clear) return Refuse("the header fits more than one layout, or none");
  if (h.endian_mismatch()) return Refuse("the header mixes two byte orders");
  if (!image.walkable) return Refuse("the header's sizes make no sense");
  if (h.cow_format != 0) return Refuse("the header names an unknown kind of bitmap");
  if (!h.path_terminated) return Refuse("the backing file's name has no end");
  if (g.data_offset >= kMaxDataOffset) return Refuse("the disk is too large for its layout");
  if (image.file_size < g.bitmap_end()) return Refuse("the file ends within its bitmap");
  return Ok();
}

ProbeScore Probe(const ByteSource& source) {
  ByteVector head(std::min(kLongestHeader, source.Size()));
  if (head.size() < 8 || !ReadPadded(source, 0, head)) return ProbeScore::kNo;
  Resolution layouts = ResolveLayout(head, source.Size());
  const Header& h = layouts.best();
  bool sound = layouts.clear && h.version == h.spec().version;
  if (h.magic_found) return sound ? ProbeScore::kSure : ProbeScore::kHeaderDamaged;
  // Without the signature only a header that explains the file's very length counts.
  Geometry g = h.geometry();
  bool exact = g.valid && g.virtual_size > 0 && source.Size() >= g.data_end() &&
               source.Size() <= AlignUp(g.data_end(), g.sector_size);
  return sound && exact && h.path.starts_with('/') ? ProbeScore::kHeaderDamaged : ProbeScore::kNo;
}

Result<std::unique_ptr<ImageRows>> Inspect(const ByteSource& source, const std::string& path) {
  IMG_ASSIGN_OR_RETURN(auto image, ParseImage(source));
  return MakeRows(std::move(image), path);
}

}  // namespace

Result<std::unique_ptr<Driver>> CowDriver::Open(const ByteSource& source, ByteStore* store,
                                                const OpenOptions& options) {
  if (!options.snapshot.empty()) {
    return Error{ErrorCode::kUnsupported, "a COW image has no snapshots", {}};
  }
  IMG_ASSIGN_OR_RETURN(auto image, ParseImage(source));
  IMG_RETURN_IF_ERROR(CheckOpenable(*image));
  bool writable = options.writable && store != nullptr;
  return std::unique_ptr<Driver>(
      new CowDriver(writable ? *store : source, writable ? store : nullptr, image->header));
}

Capabilities CowDriver::capabilities() const {
  Capabilities can;
  can.write = can.zero = store_ != nullptr;
  return can;
}

std::optional<BackingReference> CowDriver::Backing() const {
  if (header_.path.empty()) return std::nullopt;
  // User-Mode Linux reads raw bytes whatever they are; QEMU looks.
  BackingReference reference{header_.path, header_.spec().qemu ? "" : "raw"};
  reference.else_raw = true;
  return reference;
}

Status CowDriver::CheckRange(uint64_t offset, uint64_t length) const {
  if (RangeFits(offset, length, VirtualSize())) return Ok();
  return Error{ErrorCode::kInvalid,
               fmt::format("{} bytes at {} reach beyond the disk of {} bytes", length, offset,
                           VirtualSize()),
               offset};
}

uint8_t CowDriver::WaitingBits(uint64_t bitmap_byte) const {
  auto waiting = pending_.find(bitmap_byte);
  return waiting == pending_.end() ? uint8_t{0} : waiting->second;
}

Result<Run> CowDriver::RunAt(uint64_t first, uint64_t last) const {
  RunReader reader(source_, geometry_, first, last);
  Run run;
  IMG_ASSIGN_OR_RETURN(bool found, reader.Next(&run));
  IMG_CHECK(found);
  if (!reader.unreadable().empty()) {
    return Error{ErrorCode::kIo, "the bitmap cannot be read",
                 reader.unreadable().front().offset.value};
  }
  if (pending_.empty()) return run;
  if (run.stored) return run;  // what waits behind it is found by the next question
  // Waiting bits turn sectors of a run that is not stored yet into stored ones.
  auto next = pending_.lower_bound(first / 8);
  for (; next != pending_.end() && 8 * next->first < run.last; ++next) {
    for (uint64_t bit = 0; bit < 8; ++bit) {
      uint64_t sector = 8 * next->first + bit;
      if (sector < first || sector >= run.last || (next->second >> bit & 1) == 0) continue;
      if (sector > first) {
        run.last = sector;
        return run;
      }
      run.stored = true;
      run.last = first + 1;
      while (run.last < last && (WaitingBits(run.last / 8) >> (run.last % 8) & 1) != 0) ++run.last;
      return run;
    }
  }
  return run;
}

Status CowDriver::ReadBase(uint64_t offset, MutableBytes buffer) const {
  if (backing_) return backing_(offset, buffer);
  std::fill(buffer.begin(), buffer.end(), uint8_t{0});
  return Ok();
}

Status CowDriver::ReadStored(uint64_t offset, MutableBytes buffer) const {
  uint64_t host = geometry_.data_offset + offset, file = source_.Size();
  // A file may end within its last sector; a sector that is not there at all is damage.
  uint64_t last =
      geometry_.data_offset + AlignDown(offset + buffer.size() - 1, geometry_.sector_size);
  if (last >= file) {
    uint64_t missing =
        std::max(offset, file > geometry_.data_offset ? file - geometry_.data_offset : uint64_t{0});
    return Error{
        ErrorCode::kInvalid,
        fmt::format("the sector at guest offset {} lies beyond the end of the file", missing),
        missing};
  }
  return ReadPadded(source_, host, buffer);
}

Status CowDriver::Read(uint64_t offset, MutableBytes buffer) {
  IMG_RETURN_IF_ERROR(CheckRange(offset, buffer.size()));
  uint64_t size = geometry_.sector_size;
  while (!buffer.empty()) {
    uint64_t last = DivRoundUp(offset + buffer.size(), size);
    IMG_ASSIGN_OR_RETURN(Run run, RunAt(offset / size, last));
    uint64_t length = std::min<uint64_t>(run.last * size - offset, buffer.size());
    IMG_RETURN_IF_ERROR(run.stored ? ReadStored(offset, buffer.first(length))
                                   : ReadBase(offset, buffer.first(length)));
    buffer = buffer.subspan(length);
    offset += length;
  }
  return Ok();
}

Result<BlockStatus> CowDriver::StatusAt(uint64_t offset, uint64_t limit) {
  IMG_RETURN_IF_ERROR(CheckRange(offset, 1));
  uint64_t size = geometry_.sector_size;
  uint64_t end = offset + std::max<uint64_t>(1, std::min(limit, VirtualSize() - offset));
  uint64_t last = DivRoundUp(end, size);
  IMG_ASSIGN_OR_RETURN(Run run, RunAt(offset / size, last));
  while (run.last < last) {
    IMG_ASSIGN_OR_RETURN(Run next, RunAt(run.last, last));
    if (next.stored != run.stored) break;
    run.last = next.last;
  }
  BlockStatus status;
  status.length = std::min(run.last * size, end) - offset;
  if (!run.stored) return status;
  status.state = MappingState::kData;
  status.host_offset = geometry_.data_offset + offset;
  return status;
}

namespace {
constexpr std::string_view kAliases[] = {"uml-cow"};
}  // namespace

const Format kFormat = {"cow",  kAliases,          "QEMU and User-Mode Linux copy-on-write",
                        Probe,  Inspect,           CowDriver::Open,
                        Create, CreateOptionHelp()};

}  // namespace imgfsck::cow
