// SPDX-License-Identifier: Apache-2.0
// The link of a differencing disk to its parent. --relink PARENT writes the parent's new place into
// name and locators after proving that it is the parent: its id is the one recorded. Another id is
// recorded only when --fix vhd-parent-uuid-mismatch asks for that, too, and the sizes agree. With
// -r all and --chain a child that is smaller than its parent grows to the parent's size.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "base/checked.h"
#include "chain/vhd_parent.h"
#include "formats/vhd/driver.h"
#include "formats/vhd/encode.h"
#include "repair/vhd/passes.h"

namespace imgfsck::vhd {
namespace {

bool RelinkWanted(const CheckReport& report, const RepairOptions& options) {
  return StateOf(report).image->kind == Kind::kDifferencing &&
         (!options.relink_parent.empty() || WantedAny(report, options, {Problem::kVhdParentSize}));
}

std::string RelativePath(const std::string& child, const std::string& parent) {
  namespace fs = std::filesystem;
  std::error_code error;
  fs::path from = fs::absolute(child, error).parent_path();
  fs::path to = fs::absolute(parent, error).lexically_normal();
  fs::path relative = to.lexically_relative(from.lexically_normal());
  return relative.empty() ? to.string() : relative.string();
}

class RelinkPass {
 public:
  explicit RelinkPass(const PassContext& context)
      : editor_(context), image_(editor_.image()), header_(image_.header) {}

  Result<PassOutcome> Run() {
    if (image_.header_state != SlotState::kSound) return outcome_;
    if (!editor_.options().relink_parent.empty()) IMG_RETURN_IF_ERROR(Relink());
    if (editor_.Asked(Problem::kVhdParentSize)) IMG_RETURN_IF_ERROR(Grow());
    return outcome_;
  }

 private:
  const std::string& ChildPath() const { return editor_.options().check.path; }

  Status Relink() {
    IMG_ASSIGN_OR_RETURN(Parent parent,
                         ResolveParent(image_, ChildPath(), editor_.options().relink_parent));
    if (!Proved(parent)) return Ok();
    std::string path = RelativePath(ChildPath(), editor_.options().relink_parent);
    SetParentName(&header_, Basename(path));
    constexpr int64_t kNanoseconds = 1'000'000'000;
    header_.parent_timestamp = static_cast<uint32_t>(
        std::clamp<int64_t>(parent.identity.mtime_ns / kNanoseconds - kEpoch, 0, UINT32_MAX));
    for (uint32_t code : {kLocatorMacX, kLocatorW2ku, kLocatorW2ru}) {
      IMG_RETURN_IF_ERROR(SetLocator(code, path));
    }
    ++outcome_.changes;
    return editor_.WriteHeader(header_);
  }

  bool Proved(const Parent& parent) {
    if (parent.fit == ParentFit::kFits || parent.fit == ParentFit::kRawFits) return true;
    bool asked = editor_.AskedByName(Problem::kVhdParentUuidMismatch);
    bool same_size = parent.image && parent.image->VirtualSize() == image_.VirtualSize();
    if (parent.fit == ParentFit::kOtherId && asked && same_size) {
      header_.parent_id = parent.image->footer.unique_id;
      outcome_.changed.push_back(OfDisk(MakeGuestRange(0, image_.VirtualSize())));
      return true;
    }
    outcome_.notes.push_back(
        parent.fit == ParentFit::kNotAVhd
            ? "the disk was not relinked: the file named is no VHD"
            : "the disk was not relinked: the disk named has another id than the one recorded "
              "(--fix vhd-parent-uuid-mismatch records it all the same)");
    return false;
  }

  // In the slot of that kind, else a free one; where its payload fits, else in fresh space.
  Status SetLocator(uint32_t code, const std::string& path) {
    auto& locators = header_.locators;
    auto slot = std::ranges::find(locators, code, &Locator::code);
    if (slot == locators.end()) {
      slot = std::ranges::find(locators, kLocatorNone, &Locator::code);
    }
    if (slot == locators.end()) return Ok();
    ByteVector payload = EncodeLocator(code, path);
    auto length = static_cast<uint32_t>(payload.size());
    uint64_t room = slot->SpaceBytes().value_or(0);
    bool fits = slot->code == code && room >= length && IsOwn(*slot, room);
    if (!fits) {
      room = AlignUp(length, kSectorSize);
      IMG_ASSIGN_OR_RETURN(slot->data_offset, editor_.Append(room));
    }
    payload.resize(room);
    slot->code = code;
    slot->data_space = static_cast<uint32_t>(room);
    slot->data_length = length;
    slot->reserved = 0;
    return editor_.Write(slot->data_offset, payload);
  }

  // Nothing but this locator lies in its room.
  bool IsOwn(const Locator& locator, uint64_t room) const {
    if (!IsAligned(locator.data_offset, kSectorSize) || room > kMaxLocatorBytes ||
        !RangeFits(locator.data_offset, room, image_.DataEnd())) {
      return false;
    }
    auto apart = [&](uint64_t offset, uint64_t length) {
      return offset >= locator.data_offset + room || offset + length <= locator.data_offset;
    };
    size_t here = 0;
    for (const MetaRegion& r : image_.regions) here += !apart(r.offset, r.length);
    return here <= 1 && std::ranges::all_of(editor_.state().blocks, [&](const Block& b) {
             return apart(b.offset(), image_.BlockLength());
           });
  }

  // Row 79.
  Status Grow() {
    auto parent = ResolveParent(image_, ChildPath());
    if (!parent || !parent->image || parent->fit != ParentFit::kFits) return Ok();
    uint64_t size = parent->image->VirtualSize();
    if (size <= image_.VirtualSize() || size > kMaxSectors * kSectorSize) return Ok();
    uint64_t needed = DivRoundUp(size, image_.block_size);
    if (needed > image_.bat_entries) {
      IMG_RETURN_IF_ERROR(GrowTable(&editor_, needed, &header_, &outcome_));
      if (outcome_.changes == 0) return Ok();
      IMG_RETURN_IF_ERROR(editor_.WriteHeader(header_));
    }
    OpenOptions options;
    options.writable = true;
    IMG_ASSIGN_OR_RETURN(auto driver,
                         VhdDriver::Open(editor_.overlay(), &editor_.overlay(), options));
    IMG_RETURN_IF_ERROR(driver->Resize(size));
    ++outcome_.changes;
    return Ok();
  }

  Editor editor_;
  const Image& image_;
  DynHeader header_;
  PassOutcome outcome_;
};

Result<PassOutcome> RunRelink(const PassContext& context) { return RelinkPass(context).Run(); }

}  // namespace

const Pass kRelinkPass{"parent-link", 70, "link the disk to its parent", RelinkWanted, RunRelink};

}  // namespace imgfsck::vhd
