// SPDX-License-Identifier: Apache-2.0
// VHD: parent names and locators, versions, sizes.
#include <fmt/format.h>

#include "base/checked.h"
#include "formats/vhd/links.h"
#include "triage/policy/collector.h"

namespace imgfsck {
namespace {

using namespace vhd;

void JudgeNames(const Image& image, ReasonCollector& out) {
  // Other readers go by the bytes that stand there, whatever their checksum says.
  const DynHeader& header = image.stored_header.HasCookie() ? image.stored_header : image.header;
  const bool used = image.kind == Kind::kDifferencing;
  const uint64_t name_at = image.header_offset + header_at::kParentName;
  if (std::string name = ParentName(header).utf8; !name.empty()) {
    if (used) {
      out.AddName(ReasonCode::kRefParent, name, name_at, kParentNameSize);
    } else {
      out.AddAt(ReasonCode::kRefParentUnused, name_at, kParentNameSize, name);
    }
  } else if (used) {
    out.AddAt(ReasonCode::kRefParent, image.header_offset + header_at::kParentId, 16,
              "without a name");
  }
  for (const ParentPointer& pointer : ParentPointers(image, header)) {
    const uint64_t offset = pointer.locator.data_offset, length = pointer.locator.data_length;
    const std::string text = pointer.text.utf8.empty() ? "opaque" : pointer.text.utf8;
    if (!used) {
      out.AddAt(ReasonCode::kRefParentUnused, offset, length, text);
    } else if (!pointer.in_file) {
      out.AddAt(ReasonCode::kRefLocator,
                image.header_offset + header_at::kLocators + pointer.slot * kLocatorSize,
                kLocatorSize, "its text lies outside the file");
    } else {
      out.AddName(ReasonCode::kRefLocator, text, offset, length);
      const std::string url = text.starts_with("file://") ? text.substr(7) : "";
      if (!url.empty()) out.AddName(ReasonCode::kRefLocator, url, offset, length);
    }
  }
}

void JudgeFields(const Image& image, ReasonCollector& out) {
  const FooterSlot& slot = image.trailing.believable() ? image.trailing : image.leading;
  if (slot.believable() && image.footer.version >> 16 != kVersion1 >> 16) {
    out.AddAt(ReasonCode::kFeatureUnknown, slot.offset + footer_at::kVersion, 4,
              fmt::format("version {:#x}", image.footer.version));
  }
  if (image.footer.saved_state != 0) {
    out.AddAt(ReasonCode::kTimeBomb, slot.offset + footer_at::kSavedState, 1,
              "a machine was saved on it");
  }
  if (image.trailing.state == SlotState::kKilled) {
    out.AddAt(ReasonCode::kTimeBomb, image.trailing.offset, 16, "it was left open");
  }
  if (!image.sparse()) return;
  const uint64_t at = image.header_offset;
  const DynHeader& h = image.stored_header;
  if (h.HasCookie() && h.version >> 16 != kVersion1 >> 16) {
    out.AddAt(ReasonCode::kFeatureUnknown, at + header_at::kVersion, 4,
              fmt::format("header version {:#x}", h.version));
  }
  const bool power = h.block_size != 0 && (h.block_size & (h.block_size - 1)) == 0;
  if (h.HasCookie() && (!power || h.block_size < kSectorSize || h.block_size > 256 * kMiB)) {
    out.AddAt(ReasonCode::kMemSafety, at + header_at::kBlockSize, 4,
              fmt::format("blocks of {} bytes", h.block_size));
  }
  if (h.HasCookie() && !RangeFits(h.table_offset, uint64_t{h.max_entries} * 4, image.file_size)) {
    out.AddAt(ReasonCode::kDosTable, at + header_at::kMaxEntries, 4,
              fmt::format("{} entries at {} in a file of {} bytes", h.max_entries, h.table_offset,
                          image.file_size));
  }
}

}  // namespace

void JudgeVhd(ReasonCollector& out) {
  auto parsed = ParseImage(out.file(), {});
  if (!parsed) return;
  const Image& image = **parsed;
  JudgeFields(image, out);
  if (!image.sparse()) return;
  JudgeNames(image, out);
}

}  // namespace imgfsck
