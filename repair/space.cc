// SPDX-License-Identifier: Apache-2.0
#include "repair/space.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>

#include "base/checked.h"
#include "base/text.h"
#include "io/file.h"
#include "io/undo_record.h"

namespace imgfsck {
namespace {

std::string ParentFolder(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

std::optional<dev_t> DeviceOf(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return std::nullopt;
  return info.st_dev;
}

// Patched bytes that the host does not store yet: holes, and what lies past the end.
Result<uint64_t> NewlyStored(const Overlay& overlay) {
  uint64_t sum = 0;
  IMG_RETURN_IF_ERROR(
      overlay.ForEachPatch([&](uint64_t offset, Bytes old_bytes, Bytes new_bytes) -> Status {
        sum += new_bytes.size() - std::min(old_bytes.size(), new_bytes.size());
        for (uint64_t at = offset; at < offset + old_bytes.size();) {
          IMG_ASSIGN_OR_RETURN(const HostExtent extent, overlay.base().ExtentAt(at));
          const uint64_t end = std::min(extent.offset + extent.length, offset + old_bytes.size());
          if (end <= at) break;
          // A hole is filled a file system block at a time.
          if (extent.hole) sum += AlignUp(end - at, Overlay::kPage);
          at = end;
        }
        return Ok();
      }));
  return sum;
}

Status Require(const std::string& path, uint64_t needed, std::string_view what) {
  IMG_ASSIGN_OR_RETURN(const uint64_t free, FreeSpaceFor(path));
  if (needed <= free) return Ok();
  return Error{ErrorCode::kNoSpace,
               fmt::format("{} needs {} at {}, and {} are free; nothing was written", what,
                           HumanSize(needed), Printable(path), HumanSize(free)),
               {}};
}

}  // namespace

Status CheckSpaceForCommit(const std::string& image_path, const std::string& undo_path,
                           const Overlay& overlay) {
  const std::string undo_folder = ParentFolder(undo_path);
  IMG_ASSIGN_OR_RETURN(const uint64_t record, UndoRecord::SpaceNeeded(image_path, overlay));
  IMG_ASSIGN_OR_RETURN(uint64_t growth, NewlyStored(overlay));
  struct stat info;
  const bool is_device = stat(image_path.c_str(), &info) == 0 && S_ISBLK(info.st_mode);
  if (is_device) growth = 0;
  if (growth > 0 && DeviceOf(image_path) == DeviceOf(undo_folder)) {
    return Require(undo_folder, SaturatingAdd(record, growth), "the repair with its undo record");
  }
  IMG_RETURN_IF_ERROR(Require(undo_folder, record, "the undo record"));
  return growth > 0 ? Require(image_path, growth, "the repaired image") : Ok();
}

Status CheckSpaceForCopy(const std::string& output_path, const ByteSource& source) {
  uint64_t stored = 0;
  for (uint64_t at = 0; at < source.Size();) {
    IMG_ASSIGN_OR_RETURN(const HostExtent extent, source.ExtentAt(at));
    if (extent.length == 0) break;
    if (!extent.hole) stored += extent.length;
    at = extent.offset + extent.length;
  }
  return Require(ParentFolder(output_path), stored, "the copy");
}

}  // namespace imgfsck
