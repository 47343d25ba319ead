// SPDX-License-Identifier: Apache-2.0
#include "tools/imgio/new_backing.h"

#include "chain/gate.h"
#include "formats/vhd/create.h"
#include "tools/imgio/commands.h"

namespace imgfsck {
namespace {

// A child of a VHD records its parent's id, and when the parent was last written.
Status NoteParentOfVhd(const std::string& path, CreateOptions* set) {
  const std::string& format = set->at("backing_fmt");
  if ((format != "vpc" && format != "raw") || set->contains("parent_uuid")) return Ok();
  IMG_ASSIGN_OR_RETURN(std::string parent_path, ResolveBackingName(path, set->at("backing_file")));
  IMG_ASSIGN_OR_RETURN(auto parent, OpenNamed(parent_path));
  IMG_ASSIGN_OR_RETURN(FileIdentity identity, parent->Identity());
  return vhd::DescribeParent(*parent, identity.mtime_ns / 1'000'000'000, set);
}

}  // namespace

Result<std::unique_ptr<Chain>> OpenNewBacking(const ImgioOptions& options, const std::string& path,
                                              const Format& format, const CreateOptions& set) {
  BackingReference reference{set.at("backing_file"), ""};
  if (auto said = set.find("backing_fmt"); said != set.end()) reference.format = said->second;
  reference.else_raw = !HasCreateOption(format, "backing_fmt");
  ChainOptions chain;
  IMG_ASSIGN_OR_RETURN(chain.passphrase, Passphrase(options));
  IMG_ASSIGN_OR_RETURN(auto base, Chain::OpenBacking(path, reference, chain));
  if (base->UsesFile(path)) {
    return Error{ErrorCode::kConflict, "an image cannot be its own backing file", {}};
  }
  return base;
}

Status NoteNewBacking(const Chain& base, const std::string& path, const Format& format,
                      CreateOptions* set) {
  const ChainLayer& below = *base.layers().front();
  set->emplace("backing_fmt", std::string(below.format->name));
  if (format.name == "vpc") IMG_RETURN_IF_ERROR(NoteParentOfVhd(path, set));
  if (!HasCreateOption(format, "backing_mtime")) return Ok();
  BackingReference stamp;
  IMG_RETURN_IF_ERROR(NoteStamp(below, &stamp));
  set->emplace("backing_mtime", std::to_string(static_cast<uint32_t>(*stamp.mtime_seconds)));
  set->emplace("backing_size", std::to_string(*stamp.file_size));
  return Ok();
}

uint64_t SizeFromBacking(Chain& base, const Format& format) {
  const ChainLayer& below = *base.layers().front();
  // The disk of such an image is as long as the file behind it.
  if (HasCreateOption(format, "backing_mtime") && below.format->name == "raw") {
    return below.file().Size();
  }
  return base.driver().VirtualSize();
}

}  // namespace imgfsck
