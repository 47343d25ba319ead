// SPDX-License-Identifier: Apache-2.0
// Rows 67 to 74 and 77: how a differencing disk names its parent.
#include <fmt/format.h>

#include <algorithm>

#include "analyzers/vhd/rules.h"
#include "base/checked.h"
#include "base/text.h"
#include "formats/vhd/links.h"

namespace imgfsck::vhd {
namespace {

Finding LocatorFinding(Problem problem, const Image& image, size_t slot, std::string detail = {}) {
  return At(problem, fmt::format("locator[{}]", slot),
            image.header_offset + header_at::kLocators + slot * kLocatorSize, kLocatorSize,
            std::move(detail));
}

void JudgeLocator(const Image& image, const ParentPointer& pointer, Findings* out) {
  const Locator& l = pointer.locator;
  auto add = [&](Problem problem, std::string detail = {}) {
    out->Add(LocatorFinding(problem, image, pointer.slot, std::move(detail)));
  };
  if (!IsKnownLocator(l.code)) {
    add(Problem::kVhdLocatorCodeUnknown, FourCcText(l.code));
  }
  auto space = l.SpaceBytes();
  if (!space || *space < l.data_length) {
    add(Problem::kVhdLocatorSpace, fmt::format("{} for {} bytes", l.data_space, l.data_length));
  }
  bool placed = IsAligned(l.data_offset, kSectorSize) && l.data_offset >= kFooterSize &&
                RangeFits(l.data_offset, l.data_length, image.DataEnd());
  if (!placed || (l.data_length > 0 && !pointer.in_file)) {
    add(Problem::kVhdLocatorRange,
        fmt::format("{} bytes at {}", l.data_length, Hex(l.data_offset)));
  } else if (!pointer.text.valid || (IsKnownLocator(l.code) && l.code != kLocatorMac &&
                                     (pointer.text.utf8.empty() || pointer.path.empty()))) {
    add(Problem::kVhdLocatorUndecodable, FourCcText(l.code));
  }
  if (l.reserved != 0) add(Problem::kVhdLocatorNonzeroNone, "its reserved field is not zero");
}

void JudgeNames(const Image& image, const std::vector<ParentPointer>& pointers, Findings* out) {
  DecodedText name = ParentName(image);
  uint64_t at = image.header_offset + header_at::kParentName;
  if (name.utf8.empty() || !name.valid) {
    Finding f = At(Problem::kVhdParentName, "header", at, kParentNameSize,
                   name.valid ? "" : "the name cannot be read");
    bool known = std::ranges::any_of(pointers, [](auto& p) { return !p.path.empty(); });
    if (!known) f.repair = RepairClass::kNone;
    out->Add(std::move(f));
    return;
  }
  for (const ParentPointer& pointer : pointers) {
    if (pointer.path.empty() || !pointer.text.valid) continue;
    if (Basename(pointer.path) == Basename(name.utf8)) continue;
    out->Add(LocatorFinding(Problem::kVhdLocatorNameMismatch, image, pointer.slot,
                            fmt::format("{} and {}", Printable(Basename(pointer.path)),
                                        Printable(Basename(name.utf8)))));
  }
}

}  // namespace

void JudgeLocators(const Image& image, Findings* out) {
  const auto& locators = image.header.locators;
  for (size_t i = 0; i < kLocatorCount; ++i) {
    if (locators[i].code == kLocatorNone && locators[i] != Locator{}) {
      out->Add(LocatorFinding(Problem::kVhdLocatorNonzeroNone, image, i));
    }
  }
  if (image.kind != Kind::kDifferencing) return;
  auto pointers = ParentPointers(image);
  for (size_t i = 0; i < pointers.size(); ++i) {
    JudgeLocator(image, pointers[i], out);
    bool twice = std::any_of(pointers.begin(), pointers.begin() + static_cast<ptrdiff_t>(i),
                             [&](const ParentPointer& earlier) {
                               return earlier.locator.code == pointers[i].locator.code;
                             });
    if (twice) {
      out->Add(LocatorFinding(Problem::kVhdLocatorDuplicate, image, pointers[i].slot,
                              FourCcText(pointers[i].locator.code)));
    }
  }
  JudgeNames(image, pointers, out);
}

}  // namespace imgfsck::vhd
