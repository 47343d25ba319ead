// SPDX-License-Identifier: Apache-2.0
#include "formats/vhd/links.h"

#include <algorithm>

#include "base/checked.h"
#include "formats/common/tolerant.h"

namespace imgfsck::vhd {

std::vector<ParentPointer> ParentPointers(const Image& image) {
  return ParentPointers(image, image.header);
}

std::vector<ParentPointer> ParentPointers(const Image& image, const DynHeader& header) {
  std::vector<ParentPointer> pointers;
  for (size_t i = 0; i < kLocatorCount; ++i) {
    ParentPointer pointer{i, header.locators[i], false, {}, {}};
    const Locator& locator = pointer.locator;
    if (locator.code == kLocatorNone) continue;
    pointer.in_file = locator.data_length > 0 && locator.data_length <= kMaxLocatorBytes &&
                      RangeFits(locator.data_offset, locator.data_length, image.file_size);
    if (pointer.in_file) {
      ByteVector payload(locator.data_length);
      std::vector<HostRange> bad;
      ReadTolerant(*image.source, locator.data_offset, payload, &bad);
      pointer.text = DecodeLocator(locator.code, payload);
      pointer.text.valid = pointer.text.valid && bad.empty();
      pointer.path = LocatorPath(locator.code, pointer.text.utf8);
    }
    pointers.push_back(std::move(pointer));
  }
  return pointers;
}

DecodedText ParentName(const Image& image) { return ParentName(image.header); }

DecodedText ParentName(const DynHeader& header) {
  // Whoever wrote a name behind the first NUL did not mean it to be read.
  Bytes name = header.ParentName();
  size_t end = 0;
  while (end + 2 <= name.size() && BeAt<uint16_t>(name, end) != 0) end += 2;
  return DecodeUtf16(name.first(end), ByteOrder::kBig);
}

std::vector<std::string> ParentCandidates(const Image& image) {
  std::vector<std::string> candidates;
  auto add = [&](std::string path) {
    if (path.empty() || path.find('\0') != std::string::npos) return;
    if (std::ranges::find(candidates, path) == candidates.end()) {
      candidates.push_back(std::move(path));
    }
  };
  auto pointers = ParentPointers(image);
  auto each = [&](uint32_t code, auto&& use) {
    for (const ParentPointer& pointer : pointers) {
      if (pointer.locator.code == code && !pointer.path.empty()) use(pointer.path);
    }
  };
  auto relative = [](const std::string& path) { return path.substr(path.find_first_not_of('/')); };
  auto usable = [](const std::string& path) {
    return path.find_first_not_of('/') != std::string::npos;
  };
  each(kLocatorW2ru, [&](const std::string& path) {
    if (usable(path)) add(relative(path));
  });
  each(kLocatorMacX, [&](const std::string& path) {
    add(path);
    if (usable(path)) add(relative(path));
  });
  for (uint32_t code : {kLocatorW2ku, kLocatorWi2r, kLocatorWi2k}) {
    each(code, [&](const std::string& path) {
      add(path);
      add(std::string(Basename(path)));
    });
  }
  add(std::string(Basename(ParentName(image).utf8)));
  return candidates;
}

ParentFit FitOfParent(const Image& child, const ByteSource& candidate) {
  auto parent = ParseImage(candidate, {.search = false});
  bool is_vhd = parent && ((*parent)->trailing.believable() || (*parent)->leading.believable());
  if (IsNull(child.header.parent_id)) return is_vhd ? ParentFit::kOtherId : ParentFit::kRawFits;
  if (!is_vhd) return ParentFit::kNotAVhd;
  return (*parent)->footer.unique_id == child.header.parent_id ? ParentFit::kFits
                                                               : ParentFit::kOtherId;
}

}  // namespace imgfsck::vhd
