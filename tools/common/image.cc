// SPDX-License-Identifier: Apache-2.0
#include "tools/common/image.h"

#include <fmt/format.h>

#include "io/lock.h"

namespace imgfsck {

Result<OpenedImage> OpenImage(const std::string& path, const std::string& format_name,
                              const std::string& bad_map, const std::function<void()>& opened) {
  OpenedImage image;
  image.path = path;
  IMG_ASSIGN_OR_RETURN(image.file, FileSource::Open(path));
  IMG_ASSIGN_OR_RETURN(image.identity, image.file->Identity());
  if (auto use = ProbeImageUse(image.file->fd()); use) image.in_use = use->written;
  if (!bad_map.empty()) {
    IMG_ASSIGN_OR_RETURN(auto bad, ReadDdrescueMap(bad_map));
    image.with_bad_ranges = std::make_unique<BadRangeSource>(*image.file, std::move(bad));
  }
  opened();
  if (!format_name.empty()) {
    image.format = FindFormat(format_name);
    if (image.format == nullptr) {
      return Error{ErrorCode::kInvalid, fmt::format("unknown format '{}'", format_name), {}};
    }
    return image;
  }
  if (image.source().Size() == 0) {
    return Error{ErrorCode::kUnsupported, "the file is empty: no disk image", {}};
  }
  image.format = ProbeFormat(image.source());
  if (image.format == nullptr) {
    return Error{ErrorCode::kUnsupported,
                 "not recognised as a disk image of any known format; if its beginning was "
                 "overwritten, name the format with --format",
                 {}};
  }
  return image;
}

bool ChangedSince(const OpenedImage& image) {
  auto now = image.file->Identity();
  return !now || *now != image.identity;
}

}  // namespace imgfsck
