// SPDX-License-Identifier: Apache-2.0
// Header fields, the link to the backing file, and the header that an older image had.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "formats/cow/create.h"
#include "repair/cow/passes.h"

namespace imgfsck::cow {
namespace {

// With these numbers the file holds at least its bitmap, and not more than its data.
bool Fits(const Header& header, uint64_t file_size) {
  Geometry g = header.geometry();
  return g.valid && g.virtual_size > 0 && file_size >= g.bitmap_end() &&
         file_size <= AlignUp(g.data_end(), g.sector_size);
}

void RepairNumbers(const PassContext& context, Header* header, PassOutcome* outcome) {
  uint64_t file_size = context.image.Size();
  Header candidate = *header;
  if (Mends(context, Problem::kCowSectorsize)) candidate.sectorsize = kSectorSize;
  if (Mends(context, Problem::kCowAlignment)) candidate.alignment = kPageAlignment;
  if (Mends(context, Problem::kCowSizeZero)) {
    const LinkedFile& base = StateOf(context.report).base;
    if (base.state == LinkedFile::State::kPresent && base.regular) candidate.size = base.size;
  }
  bool changed = candidate.sectorsize != header->sectorsize ||
                 candidate.alignment != header->alignment || candidate.size != header->size;
  if (!changed) return;
  if (Fits(candidate, file_size)) {
    *header = candidate;
  } else {
    outcome->notes.push_back("with the usual numbers the header does not fit the file either");
  }
}

// A path field: garbage behind the name, relative names.
Status RepairPath(const PassContext& context, Header* header, ByteVector* bytes) {
  const Layout& layout = header->spec();
  if (Mends(context, Problem::kCowPathRelative) && !header->path.empty()) {
    std::error_code error;
    std::filesystem::path image = context.options.check.path;
    auto absolute = std::filesystem::absolute(image.parent_path() / header->path, error);
    std::string name = absolute.lexically_normal().string();
    if (!error && !image.empty() && name.size() < layout.path_length) header->path = name;
  }
  if (Mends(context, Problem::kCowPathGarbage)) {
    std::fill_n(bytes->begin() + layout.path_offset, layout.path_length, uint8_t{0});
  }
  return Ok();
}

// 64-bit writers before December 2005 put 4 bytes too many before the size; bitmap and data stay.
void RepairBrokenForm(const PassContext& context, Header* header, ByteVector* bytes) {
  if (!Mends(context, Problem::kCowV3BrokenLayout)) return;
  Header packed = *header;
  packed.layout = LayoutId::kUml3;
  Geometry old = header->geometry(), now = packed.geometry();
  if (!now.valid || now.bitmap_offset != old.bitmap_offset) return;
  *header = packed;
  std::fill(bytes->begin(), bytes->end(), uint8_t{0});
}

}  // namespace

Status WriteHeader(ByteStore& bytes, const Header& header) {
  ByteVector start(header.spec().header_length);
  IMG_RETURN_IF_ERROR(ReadPadded(bytes, 0, start));
  EncodeHeader(header, start);
  return bytes.WriteAt(0, start);
}

Result<PassOutcome> RepairHeader(const PassContext& context) {
  PassOutcome outcome;
  const CheckState& state = StateOf(context.report);
  const Image& image = *state.image;
  if (image.file_size < image.header.spec().header_length) return outcome;
  Header header = image.header;
  ByteVector old(kLongestHeader);
  IMG_RETURN_IF_ERROR(ReadPadded(context.image, 0, old));
  ByteVector bytes = old;
  if (Mends(context, Problem::kCowVersion)) header.version = header.spec().version;
  if (Mends(context, Problem::kCowFormatField)) header.cow_format = 0;
  RepairNumbers(context, &header, &outcome);
  IMG_RETURN_IF_ERROR(RepairPath(context, &header, &bytes));
  RepairBrokenForm(context, &header, &bytes);
  if (Mends(context, Problem::kCowBackingMtime) &&
      state.base.state == LinkedFile::State::kPresent) {
    header.mtime = static_cast<uint32_t>(state.base.mtime_seconds);
  }
  EncodeHeader(header, bytes);  // magic and byte order included
  // A signature that nobody asked to mend stays as it is.
  bool magic = Mends(context, Problem::kCowMagic) || Mends(context, Problem::kCowEndian);
  if (!magic) std::copy_n(old.begin(), 4, bytes.begin());
  // So does a name without an end.
  if (!header.path_terminated && !Mends(context, Problem::kCowPathUnterminated)) {
    uint32_t last = header.spec().path_offset + header.spec().path_length - 1;
    bytes[last] = old[last];
  }
  uint64_t length = std::max(image.header.spec().header_length, header.spec().header_length);
  length = std::min<uint64_t>(length, image.file_size);
  if (std::equal(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(length), old.begin())) {
    return outcome;
  }
  IMG_RETURN_IF_ERROR(context.image.WriteAt(0, Bytes(bytes).first(length)));
  ++outcome.changes;
  // Under another name, what is not stored here may be another file's.
  Header mended = ParseHeaderAs(header.layout, header.little_endian, bytes);
  if (mended.path != image.header.path) {
    outcome.changed.push_back(
        {std::string(kActiveLayer), MakeGuestRange(0, image.geometry.virtual_size)});
  }
  return outcome;
}

namespace {

struct BaseFile {
  std::string name;
  uint64_t size = 0, mtime = 0;
};

// The backing file that the user names, looked at from outside.
Result<BaseFile> LookAtBase(const std::string& path) {
  IMG_ASSIGN_OR_RETURN(auto file, FileSource::Open(path));
  IMG_ASSIGN_OR_RETURN(FileIdentity identity, file->Identity());
  std::error_code error;
  auto absolute = std::filesystem::absolute(path, error);
  return BaseFile{error ? path : absolute.lexically_normal().string(), file->Size(),
                  static_cast<uint64_t>(identity.mtime_ns / 1000000000)};
}

}  // namespace

Result<PassOutcome> Recreate(const PassContext& context) {
  PassOutcome outcome;
  if (context.options.relink_parent.empty()) {
    outcome.notes.push_back("the header can be written again for a backing file (--relink FILE)");
    return outcome;
  }
  IMG_ASSIGN_OR_RETURN(BaseFile base, LookAtBase(context.options.relink_parent));
  CreateOptions options{{"backing_file", base.name},
                        {"backing_mtime", std::to_string(static_cast<uint32_t>(base.mtime))}};
  IMG_RETURN_IF_ERROR(Create(context.image, base.size, options));
  ++outcome.changes;
  return outcome;
}

Result<PassOutcome> Relink(const PassContext& context) {
  PassOutcome outcome;
  const Image& image = *StateOf(context.report).image;
  if (!image.walkable || !image.layouts.clear) return outcome;
  IMG_ASSIGN_OR_RETURN(BaseFile base, LookAtBase(context.options.relink_parent));
  Header header = image.header;
  if (base.size < image.geometry.virtual_size ||
      (!header.spec().qemu && base.size != header.size)) {
    outcome.notes.push_back(fmt::format("the file named by --relink has {} bytes, the disk {}",
                                        base.size, image.geometry.virtual_size));
    return outcome;
  }
  if (base.name.size() >= header.spec().path_length) {
    outcome.notes.push_back("the name of the file named by --relink is too long for the layout");
    return outcome;
  }
  uint64_t mtime = static_cast<uint32_t>(base.mtime);
  if (header.path == base.name && header.mtime == mtime) return outcome;
  header.path = base.name;
  header.mtime = mtime;
  IMG_RETURN_IF_ERROR(WriteHeader(context.image, header));
  ++outcome.changes;
  // What is not stored here is another file's from now on.
  outcome.changed.push_back(
      {std::string(kActiveLayer), MakeGuestRange(0, image.geometry.virtual_size)});
  return outcome;
}

Result<PassOutcome> RestoreOlder(const PassContext& context) {
  PassOutcome outcome;
  const CheckState& state = StateOf(context.report);
  if (!state.older) return outcome;
  const Header& older = *state.older;
  ByteVector bytes(older.spec().header_length);
  if (older.path.size() >= older.spec().path_length) {
    outcome.notes.push_back("the backing file's name does not fit the older header");
    return outcome;
  }
  EncodeHeader(older, bytes);
  IMG_RETURN_IF_ERROR(context.image.WriteAt(0, bytes));
  ++outcome.changes;
  const Geometry g = older.geometry();
  const uint64_t overwritten = state.image->header.spec().header_length;
  if (overwritten > g.bitmap_offset) {
    const uint64_t sectors = 8 * std::min(overwritten - g.bitmap_offset, g.bitmap_bytes);
    outcome.lost.push_back({std::string(kActiveLayer),
                            MakeGuestRange(0, std::min(sectors * g.sector_size, g.virtual_size))});
    outcome.particulars.push_back(fmt::format(
        "the marks of the first {} sectors lay under the newer header and are gone", sectors));
  }
  uint64_t size = std::max(g.virtual_size, state.image->geometry.virtual_size);
  outcome.changed.push_back({std::string(kActiveLayer), MakeGuestRange(0, size)});
  return outcome;
}

}  // namespace imgfsck::cow
