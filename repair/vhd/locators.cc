// SPDX-License-Identifier: Apache-2.0
// How a differencing disk names its parent: room and place of the locators, texts that cannot be
// read, a name that is missing.
#include <algorithm>

#include "base/checked.h"
#include "formats/vhd/encode.h"
#include "formats/vhd/links.h"
#include "repair/vhd/passes.h"

namespace imgfsck::vhd {
namespace {

constexpr std::initializer_list<Problem> kLocatorsMended = {
    Problem::kVhdLocatorSpace,        Problem::kVhdLocatorRange,
    Problem::kVhdLocatorCodeUnknown,  Problem::kVhdLocatorDuplicate,
    Problem::kVhdLocatorNonzeroNone,  Problem::kVhdLocatorUndecodable,
    Problem::kVhdLocatorNameMismatch, Problem::kVhdParentName,
    Problem::kVhdDynMetadataOverlap};

bool LocatorsWanted(const CheckReport& report, const RepairOptions& options) {
  return StateOf(report).image->kind == Kind::kDifferencing &&
         WantedAny(report, options, kLocatorsMended);
}

class LocatorPass {
 public:
  explicit LocatorPass(const PassContext& context)
      : editor_(context),
        image_(editor_.image()),
        header_(image_.header),
        pointers_(ParentPointers(image_)) {}

  Result<PassOutcome> Run() {
    if (image_.header_state != SlotState::kSound) return outcome_;
    MendName();
    MendRooms();
    DropUnwanted();
    IMG_RETURN_IF_ERROR(Rewrite());
    if (outcome_.changes > 0) IMG_RETURN_IF_ERROR(editor_.WriteHeader(header_));
    return outcome_;
  }

 private:
  // The best path that can still be read.
  std::string KnownPath() const {
    for (uint32_t code : {kLocatorW2ru, kLocatorMacX, kLocatorW2ku}) {
      for (const ParentPointer& p : pointers_) {
        if (p.locator.code == code && p.in_file && p.text.valid && !p.path.empty()) return p.path;
      }
    }
    return std::string(Basename(ParentName(image_).utf8));
  }

  void MendName() {
    if (!editor_.Asked(Problem::kVhdParentName)) return;
    std::string path = KnownPath();
    if (path.empty()) return;
    SetParentName(&header_, Basename(path));
    ++outcome_.changes;
  }

  void MendRooms() {
    if (!editor_.Asked(Problem::kVhdLocatorSpace)) return;
    for (const ParentPointer& p : pointers_) {
      auto space = p.locator.SpaceBytes();
      if (space && *space >= p.locator.data_length) continue;
      uint64_t room = AlignUp(p.locator.data_length, kSectorSize);
      if (room > UINT32_MAX) continue;
      header_.locators[p.slot].data_space = static_cast<uint32_t>(room);
      ++outcome_.changes;
    }
  }

  void Drop(size_t slot) {
    header_.locators[slot] = {};
    ++outcome_.changes;
  }

  void DropUnwanted() {
    std::vector<uint32_t> seen;
    for (const ParentPointer& p : pointers_) {
      bool unknown = !IsKnownLocator(p.locator.code);
      bool again = std::ranges::find(seen, p.locator.code) != seen.end();
      seen.push_back(p.locator.code);
      if ((unknown && editor_.Asked(Problem::kVhdLocatorCodeUnknown)) ||
          (again && editor_.Asked(Problem::kVhdLocatorDuplicate))) {
        Drop(p.slot);
      }
    }
    if (!editor_.Asked(Problem::kVhdLocatorNonzeroNone)) return;
    for (size_t i = 0; i < kLocatorCount; ++i) {
      Locator& l = header_.locators[i];
      if (l.code == kLocatorNone && l != Locator{}) Drop(i);
      if (l.reserved != 0) ++outcome_.changes;
      l.reserved = 0;
    }
  }

  // Another structure claims bytes of it.
  bool Overlaps(const Locator& l) const {
    uint64_t length = std::max<uint64_t>(l.SpaceBytes().value_or(0), l.data_length);
    auto shared = std::ranges::count_if(image_.regions, [&](const MetaRegion& r) {
      return r.offset < l.data_offset + length && l.data_offset < r.end();
    });
    return shared > 1;
  }

  bool NeedsText(const ParentPointer& p) const {
    const Locator& l = p.locator;
    bool placed =
        IsAligned(l.data_offset, kSectorSize) && l.data_offset >= kFooterSize && p.in_file;
    if (!placed) return editor_.Asked(Problem::kVhdLocatorRange);
    if (Overlaps(l) && editor_.Asked(Problem::kVhdDynMetadataOverlap)) return true;
    if (!p.text.valid || p.path.empty()) return editor_.Asked(Problem::kVhdLocatorUndecodable);
    bool other = Basename(p.path) != Basename(ParentName(image_).utf8);
    return other && editor_.AskedByName(Problem::kVhdLocatorNameMismatch);
  }

  Status Rewrite() {
    std::string path = KnownPath();
    for (const ParentPointer& p : pointers_) {
      if (header_.locators[p.slot].code == kLocatorNone || !NeedsText(p)) continue;
      bool text = p.locator.code == kLocatorW2ru || p.locator.code == kLocatorW2ku ||
                  p.locator.code == kLocatorMacX;
      if (!text || path.empty()) {
        // What it said is gone, and nothing else tells it.
        Drop(p.slot);
        continue;
      }
      ByteVector payload = EncodeLocator(p.locator.code, path);
      uint64_t room = AlignUp(payload.size(), kSectorSize);
      IMG_ASSIGN_OR_RETURN(uint64_t at, editor_.Append(room));
      IMG_RETURN_IF_ERROR(editor_.Write(at, payload));
      header_.locators[p.slot] = {p.locator.code, static_cast<uint32_t>(room),
                                  static_cast<uint32_t>(payload.size()), 0, at};
      ++outcome_.changes;
    }
    return Ok();
  }

  Editor editor_;
  const Image& image_;
  DynHeader header_;
  std::vector<ParentPointer> pointers_;
  PassOutcome outcome_;
};

Result<PassOutcome> RunLocators(const PassContext& context) { return LocatorPass(context).Run(); }

}  // namespace

const Pass kLocatorPass{"locators", 60, "make the pointers to the parent disk readable",
                        LocatorsWanted, RunLocators};

}  // namespace imgfsck::vhd
