// SPDX-License-Identifier: Apache-2.0
// Formats that are only recognised: what their fixed fields say about other files.
#include <fmt/format.h>

#include <array>
#include <string>

#include "base/checked.h"
#include "triage/policy/collector.h"

namespace imgfsck {
namespace {

constexpr uint64_t kMostQedName = 1023;

// All fields little endian: features at 16, the name's place at 56 and its length at 60.
void JudgeQed(ReasonCollector& out) {
  std::array<uint8_t, 64> header{};
  if (!ReadPadded(out.file(), 0, header)) return;
  const uint64_t features = LeAt<uint64_t>(header, 16);
  constexpr uint64_t kBacking = 1, kNeedsCheck = 2, kRawBacking = 4;
  if ((features & ~(kBacking | kNeedsCheck | kRawBacking)) != 0) {
    out.AddAt(ReasonCode::kFeatureUnknown, 16, 8, fmt::format("features {:#x}", features));
  }
  if ((features & kNeedsCheck) != 0) out.AddAt(ReasonCode::kTimeBomb, 16, 8, "marked dirty");
  const uint32_t offset = LeAt<uint32_t>(header, 56), length = LeAt<uint32_t>(header, 60);
  if ((features & kBacking) == 0 && length == 0) return;
  if (length == 0 || length > kMostQedName || !RangeFits(offset, length, out.file().Size())) {
    return out.AddAt(ReasonCode::kRefBacking, 56, 8, "its name cannot be read");
  }
  ByteVector name(length);
  if (!ReadExact(out.file(), offset, name)) return;
  out.AddName(ReasonCode::kRefBacking, AsText(name), offset, length);
}

// Version 1.1: the kind of image at 76, the ids of the disk that it continues at 424 and 440.
void JudgeVdi(ReasonCollector& out) {
  constexpr uint32_t kDifferencing = 4;
  std::array<uint8_t, 456> header{};
  if (!ReadPadded(out.file(), 0, header)) return;
  const uint32_t type = LeAt<uint32_t>(header, 76);
  const bool linked = !AllZero(Bytes(header).subspan(424, 32));
  if (type == kDifferencing || linked) {
    out.AddAt(ReasonCode::kRefParent, linked ? 424 : 76, linked ? 32 : 4,
              fmt::format("image of kind {}", type));
  }
}

}  // namespace

bool JudgeForeign(std::string_view format, uint64_t most_disk, ReasonCollector& out) {
  if (format == "vmdk") {
    std::array<uint8_t, 4> magic{};
    if (!ReadPadded(out.file(), 0, magic) || AsText(magic) == "COWD") return false;
    JudgeVmdk(most_disk, out);
    return true;
  }
  if (format == "qed") JudgeQed(out);
  if (format == "vdi") JudgeVdi(out);
  return false;  // their tables stay unknown, and so does what else they can name
}

}  // namespace imgfsck
