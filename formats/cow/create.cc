// SPDX-License-Identifier: Apache-2.0
#include "formats/cow/create.h"

#include <fmt/format.h>

#include <charconv>
#include <optional>

#include "formats/cow/image.h"

namespace imgfsck::cow {
namespace {

constexpr OptionHelp kHelp[] = {
    {"backing_file", "name of the file that holds what the image does not; absolute for uml"},
    {"backing_mtime", "its modification time, seconds since 1970 (User-Mode Linux compares it)"},
    {"backing_size", "its length in bytes; for uml that of the disk"},
    {"layout", "uml-v3 (default) or qemu-x86-64"},
};

Error BadOption(std::string_view name, std::string_view value) {
  return {ErrorCode::kInvalid, fmt::format("{}={} is not possible for cow", name, value), {}};
}

struct Backing {
  std::string format;
  std::optional<uint64_t> size;  // bytes
};

std::optional<uint64_t> ParseNumber(const std::string& text) {
  uint64_t number = 0;
  const char* end = text.data() + text.size();
  auto [stop, error] = std::from_chars(text.data(), end, number);
  return error == std::errc() && stop == end ? std::optional(number) : std::nullopt;
}

Status ApplyOption(const std::string& name, const std::string& value, Header* header,
                   Backing* backing) {
  if (name == "backing_file") {
    header->path = value;
  } else if (name == "backing_fmt") {
    backing->format = value;
  } else if (name == "backing_size") {
    backing->size = ParseNumber(value);
    if (!backing->size) return BadOption(name, value);
  } else if (name == "backing_mtime") {
    auto seconds = ParseNumber(value);
    if (!seconds || *seconds > UINT32_MAX) return BadOption(name, value);
    header->mtime = *seconds;
  } else if (name == "layout") {
    if (value != LayoutOf(LayoutId::kUml3).name && value != LayoutOf(LayoutId::kQemu64).name) {
      return BadOption(name, value);
    }
    bool uml = value == LayoutOf(LayoutId::kUml3).name;
    header->layout = uml ? LayoutId::kUml3 : LayoutId::kQemu64;
  } else {
    return BadOption(name, value);
  }
  return Ok();
}

Status CheckName(const Header& header) {
  if (header.path.size() < header.spec().path_length &&
      header.path.find('\0') == std::string::npos) {
    return Ok();
  }
  return Error{
      ErrorCode::kTooLarge,
      fmt::format("the backing file's name has more than {} bytes", header.spec().path_length - 1),
      {}};
}

// What User-Mode Linux would not open, or would read as something else.
Status CheckBacking(const Header& header, const Backing& backing) {
  if (header.spec().qemu) return Ok();
  if (!backing.format.empty() && backing.format != "raw") {
    return Error{ErrorCode::kInvalid,
                 fmt::format("User-Mode Linux reads a backing file as raw bytes, not as {}; "
                             "layout=qemu-x86-64 does",
                             backing.format),
                 {}};
  }
  if (backing.size && *backing.size != header.size) {
    return Error{ErrorCode::kInvalid,
                 fmt::format("the backing file has {} bytes, the disk {}: User-Mode Linux would "
                             "not open it",
                             *backing.size, header.size),
                 {}};
  }
  return Ok();
}

}  // namespace

std::span<const OptionHelp> CreateOptionHelp() { return kHelp; }

Status Create(ByteStore& store, uint64_t virtual_size, const CreateOptions& options) {
  Header header;
  Backing backing;
  for (const auto& [name, value] : options) {
    IMG_RETURN_IF_ERROR(ApplyOption(name, value, &header, &backing));
  }
  const Layout& layout = header.spec();
  header.version = layout.version;
  header.alignment = layout.version == 3 ? kPageAlignment : 0;
  if (virtual_size == 0 || virtual_size > (uint64_t{1} << 62)) {
    return Error{ErrorCode::kInvalid, "a COW disk cannot have that size", {}};
  }
  header.size = layout.qemu ? AlignUp(virtual_size, kSectorSize) : virtual_size;
  IMG_RETURN_IF_ERROR(CheckName(header));
  IMG_RETURN_IF_ERROR(CheckBacking(header, backing));
  Geometry g = header.geometry();
  if (!g.valid || g.data_offset >= kMaxDataOffset) {
    return Error{ErrorCode::kTooLarge, "the disk is too large for the COW format", {}};
  }
  ByteVector bytes(layout.header_length);
  EncodeHeader(header, bytes);
  // The length first: a header never promises a bitmap that is not there.
  IMG_RETURN_IF_ERROR(store.SetSize(0));
  IMG_RETURN_IF_ERROR(store.SetSize(layout.qemu ? g.bitmap_end() : g.data_end()));
  IMG_RETURN_IF_ERROR(store.WriteAt(0, bytes));
  return store.Sync();
}

Status RewriteHeader(ByteStore& store, const Header& header) {
  IMG_RETURN_IF_ERROR(CheckName(header));
  ByteVector bytes(header.spec().header_length);
  IMG_RETURN_IF_ERROR(ReadExact(store, 0, bytes));
  EncodeHeader(header, bytes);
  IMG_RETURN_IF_ERROR(store.WriteAt(0, bytes));
  return store.Sync();
}

}  // namespace imgfsck::cow
