// SPDX-License-Identifier: Apache-2.0
// imgio create. A backing file is looked at for its size and format, unless -u says not to.
#include "formats/vhd/create.h"

#include <fmt/format.h>

#include "base/text.h"
#include "chain/gate.h"
#include "tools/imgio/commands.h"

namespace imgfsck {
namespace {

// The size and the format of the backing file that the new image names.
Status LookAtBacking(const ImgioOptions& options, const Format& format, CreateOptions* set,
                     uint64_t* size, bool has_size) {
  BackingReference reference{set->at("backing_file"), ""};
  if (set->contains("backing_fmt")) reference.format = set->at("backing_fmt");
  reference.else_raw = !HasCreateOption(format, "backing_fmt");
  ChainOptions chain;
  IMG_ASSIGN_OR_RETURN(chain.passphrase, Passphrase(options));
  IMG_ASSIGN_OR_RETURN(auto base, Chain::OpenBacking(options.words[0], reference, chain));
  if (base->UsesFile(options.words[0])) {
    return Error{ErrorCode::kConflict, "an image cannot be its own backing file", {}};
  }
  if (reference.format.empty()) {
    (*set)["backing_fmt"] = std::string(base->layers().front()->format->name);
  }
  if (!has_size) *size = base->driver().VirtualSize();
  if (!HasCreateOption(format, "backing_mtime")) return Ok();
  const ChainLayer& below = *base->layers().front();
  IMG_RETURN_IF_ERROR(NoteStamp(below, &reference));
  auto seconds = static_cast<uint32_t>(*reference.mtime_seconds);
  set->emplace("backing_mtime", std::to_string(seconds));
  set->emplace("backing_size", std::to_string(*reference.file_size));
  if (!has_size && below.format->name == "raw") *size = *reference.file_size;
  return Ok();
}

// A child of a VHD records its parent's id, and when the parent was last written.
Status NoteParentOfVhd(const ImgioOptions& options, CreateOptions* set) {
  auto format = set->find("backing_fmt");
  bool can_be = format == set->end() || format->second == "vpc" || format->second == "raw";
  if (options.unsafe || !can_be || set->contains("parent_uuid")) return Ok();
  IMG_ASSIGN_OR_RETURN(std::string path,
                       ResolveBackingName(options.words[0], set->at("backing_file")));
  IMG_ASSIGN_OR_RETURN(auto parent, OpenNamed(path));
  IMG_ASSIGN_OR_RETURN(FileIdentity identity, parent->Identity());
  return vhd::DescribeParent(*parent, identity.mtime_ns / 1'000'000'000, set);
}

}  // namespace

Result<int> CreateCommand(const ImgioOptions& options) {
  const Format* format = FindFormat(options.format.empty() ? "raw" : options.format);
  if (format == nullptr || format->create == nullptr) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("images of format \"{}\" cannot be made", Printable(options.format)),
                 {}};
  }
  IMG_ASSIGN_OR_RETURN(CreateOptions set, FormatOptions(options));
  bool has_size = !options.sizes.empty();
  uint64_t size = has_size ? options.sizes[0] : 0;
  if (auto option = set.extract("size"); option && !has_size) {
    auto wanted = ParseSize(option.mapped());
    if (!wanted) return Error{ErrorCode::kInvalid, "the option size takes a size", {}};
    size = *wanted;
    has_size = true;
  }
  if (set.contains("backing_file") && !options.unsafe) {
    IMG_RETURN_IF_ERROR(LookAtBacking(options, *format, &set, &size, has_size));
  } else if (!has_size) {
    return Error{ErrorCode::kInvalid, "a new image needs a size", {}};
  }
  if (format->name == "vpc" && set.contains("backing_file")) {
    IMG_RETURN_IF_ERROR(NoteParentOfVhd(options, &set));
  }
  const std::string& path = options.words[0];
  IMG_ASSIGN_OR_RETURN(auto file, NewFile::Create(path, options.force));
  std::unique_ptr<NewFile> data;
  if (auto name = set.find("data_file"); name != set.end()) {
    IMG_ASSIGN_OR_RETURN(std::string data_path, ResolveDataFileName(name->second));
    IMG_ASSIGN_OR_RETURN(data, NewFile::Create(data_path, options.force));
    IMG_RETURN_IF_ERROR(data->store().SetSize(size));
  }
  IMG_RETURN_IF_ERROR(format->create(file->store(), size, set));
  if (data) IMG_RETURN_IF_ERROR(data->Keep(true));
  IMG_RETURN_IF_ERROR(file->Keep(true));
  if (!options.quiet) {
    fmt::print("{}: {} image of {} bytes\n", Printable(path), format->name, size);
  }
  return 0;
}

}  // namespace imgfsck
