// SPDX-License-Identifier: Apache-2.0
#include "formats/vhd/fields.h"

#include <fmt/format.h>

#include "base/checked.h"
#include "base/text.h"
#include "formats/vhd/links.h"
#include "formats/vhd/names.h"

namespace imgfsck::vhd {
namespace {

// Rows of one structure, whose bytes begin at `offset` in the file.
class Rows {
 public:
  Rows(std::vector<FieldRow>* out, std::string structure, uint64_t offset, Bytes raw)
      : out_(out), structure_(std::move(structure)), offset_(offset), raw_(raw) {}

  void Add(std::string name, uint64_t at, uint64_t length, std::string meaning) {
    if (at >= raw_.size()) return;
    Bytes bytes = raw_.subspan(at, std::min<uint64_t>(length, raw_.size() - at));
    FieldRow row{structure_, std::move(name), offset_ + at, length, std::nullopt, "", meaning};
    if (bytes.size() == 1 || bytes.size() == 2 || bytes.size() == 4 || bytes.size() == 8) {
      uint64_t value = 0;
      for (uint8_t byte : bytes) value = value << 8 | byte;
      if (value >> 63 == 0) row.value = value;
    }
    if (bytes.size() <= 64) row.raw = HexEncode(bytes);
    out_->push_back(std::move(row));
  }

 private:
  std::vector<FieldRow>* out_;
  std::string structure_;
  uint64_t offset_;
  Bytes raw_;
};

std::string CookieText(Bytes raw, std::string_view expected) {
  return AsText(raw.first(8)) == expected ? std::string(expected) : "not the signature";
}

std::string VersionText(uint32_t version) {
  return fmt::format("{}.{}", version >> 16, version & 0xFFFF);
}

std::string FeaturesText(uint32_t features) {
  std::string text = (features & kFeatureReserved) != 0 ? "reserved bit, as it must be"
                                                        : "the reserved bit is missing";
  if ((features & kFeatureTemporary) != 0) text += ", temporary disk";
  if ((features & ~3u) != 0) text += ", unknown bits";
  return text;
}

std::string ChecksumText(uint32_t stored, uint32_t computed) {
  return stored == computed ? "right" : fmt::format("wrong: the bytes give {:#010x}", computed);
}

std::string OffsetText(uint64_t offset) { return offset == kNoOffset ? "none" : Hex(offset); }

std::string TypeText(uint32_t type) {
  switch (type) {
    case 0:
      return "none";
    case 2:
      return "fixed";
    case 3:
      return "dynamic";
    case 4:
      return "differencing";
    case 1:
    case 5:
    case 6:
      return "deprecated";
    default:
      return "unknown";
  }
}

std::string IdText(const UniqueId& id) {
  if (IsNull(id)) return "none";
  // Windows shows the same bytes with its first three numbers in memory order.
  UniqueId windows = id;
  std::swap(windows[0], windows[3]);
  std::swap(windows[1], windows[2]);
  std::swap(windows[4], windows[5]);
  std::swap(windows[6], windows[7]);
  return fmt::format("{}; as Windows writes it {}", UuidText(id), UuidText(windows));
}

std::string CreatorText(uint32_t app) {
  Creator creator = CreatorOf(app);
  return fmt::format("'{}': {}, goes by {}", FourCcText(app), creator.name,
                     creator.by_chs ? "the geometry" : "current_size");
}

std::string GeometryText(const Footer& f) {
  if (IsSaturated(f.geometry)) return "the largest geometry: current_size counts";
  uint64_t bytes = ChsBytes(f);
  return fmt::format("{} x {} x {} sectors are {} bytes, current_size {} {}", f.geometry.cylinders,
                     f.geometry.heads, f.geometry.sectors_per_track, bytes,
                     bytes == f.current_size ? "is" : "differs by",
                     bytes == f.current_size  ? "the same"
                     : bytes < f.current_size ? fmt::to_string(f.current_size - bytes)
                                              : fmt::to_string(bytes - f.current_size));
}

void FooterFields(const FooterSlot& slot, const std::string& structure,
                  std::vector<FieldRow>* out) {
  if (slot.state == SlotState::kAbsent) return;
  namespace at = footer_at;
  const Footer& f = slot.footer;
  Rows rows(out, structure, slot.offset, Bytes(f.raw).first(slot.length));
  rows.Add("cookie", at::kCookie, 8, CookieText(f.raw, kFooterCookie));
  rows.Add("features", at::kFeatures, 4, FeaturesText(f.features));
  rows.Add("file_format_version", at::kVersion, 4, VersionText(f.version));
  rows.Add("data_offset", at::kDataOffset, 8, OffsetText(f.data_offset));
  rows.Add("timestamp", at::kTimestamp, 4, DateText(f.timestamp));
  rows.Add("creator_application", at::kCreatorApp, 4, CreatorText(f.creator_app));
  rows.Add("creator_version", at::kCreatorVersion, 4, VersionText(f.creator_version));
  rows.Add("creator_host_os", at::kCreatorOs, 4, FourCcText(f.creator_os));
  rows.Add("original_size", at::kOriginalSize, 8, HumanSize(f.original_size));
  rows.Add("current_size", at::kCurrentSize, 8, HumanSize(f.current_size));
  rows.Add("cylinders", at::kCylinders, 2, GeometryText(f));
  rows.Add("heads", at::kHeads, 1, "");
  rows.Add("sectors_per_track", at::kSectorsPerTrack, 1, "");
  rows.Add("disk_type", at::kDiskType, 4, TypeText(f.disk_type));
  rows.Add("checksum", at::kChecksum, 4, ChecksumText(f.checksum, Checksum(f.raw, at::kChecksum)));
  rows.Add("unique_id", at::kUniqueId, 16, IdText(f.unique_id));
  rows.Add("saved_state", at::kSavedState, 1, f.saved_state == 1 ? "machine is suspended" : "");
  rows.Add("hidden", at::kHidden, 1, f.hidden == 1 ? "hidden (XenServer)" : "");
  rows.Add("reserved", at::kReserved, kFooterSize - at::kReserved,
           AllZero(Bytes(f.raw).subspan(at::kReserved)) ? "all zero" : "not zero");
}

void LocatorFields(const Image& image, Rows* rows) {
  std::vector<ParentPointer> pointers = ParentPointers(image);
  for (size_t i = 0; i < kLocatorCount; ++i) {
    const Locator& l = image.header.locators[i];
    uint64_t base = header_at::kLocators + i * kLocatorSize;
    auto name = [&](const char* field) { return fmt::format("locator[{}].{}", i, field); };
    std::string meaning = l.code == kLocatorNone ? "unused" : FourCcText(l.code);
    for (const ParentPointer& pointer : pointers) {
      if (pointer.slot == i && !pointer.text.utf8.empty()) {
        meaning += fmt::format(" ({}): {}", l.code == kLocatorMacX ? "UTF-8" : "UTF-16LE",
                               pointer.text.utf8);
      }
    }
    rows->Add(name("platform_code"), base + locator_at::kCode, 4, meaning);
    if (l == Locator{}) continue;
    auto space = l.SpaceBytes();
    rows->Add(name("platform_data_space"), base + locator_at::kDataSpace, 4,
              space ? fmt::format("{} bytes", *space) : "neither sectors nor bytes");
    rows->Add(name("platform_data_length"), base + locator_at::kDataLength, 4, "");
    rows->Add(name("reserved"), base + locator_at::kReserved, 4, "");
    rows->Add(name("platform_data_offset"), base + locator_at::kDataOffset, 8, "");
  }
}

void HeaderFields(const Image& image, std::vector<FieldRow>* out) {
  if (image.header_state == SlotState::kAbsent) return;
  namespace at = header_at;
  const DynHeader& h = image.stored_header;
  Rows rows(out, "header", image.header_offset, h.raw);
  rows.Add("cookie", at::kCookie, 8, CookieText(h.raw, kHeaderCookie));
  rows.Add("data_offset", at::kNextOffset, 8, OffsetText(h.next_offset));
  rows.Add("table_offset", at::kTableOffset, 8, Hex(h.table_offset));
  rows.Add("header_version", at::kVersion, 4, VersionText(h.version));
  rows.Add("max_table_entries", at::kMaxEntries, 4, fmt::format("{} needed", image.BlocksNeeded()));
  rows.Add("block_size", at::kBlockSize, 4, HumanSize(h.block_size));
  rows.Add("checksum", at::kChecksum, 4, ChecksumText(h.checksum, Checksum(h.raw, at::kChecksum)));
  rows.Add("parent_unique_id", at::kParentId, 16, IdText(h.parent_id));
  rows.Add("parent_timestamp", at::kParentTimestamp, 4,
           h.parent_timestamp == 0 ? "" : DateText(h.parent_timestamp));
  rows.Add("reserved", at::kReserved1, 4, "");
  rows.Add("parent_unicode_name", at::kParentName, kParentNameSize,
           DecodeUtf16(h.ParentName(), ByteOrder::kBig).utf8);
  LocatorFields(image, &rows);
  rows.Add("reserved2", at::kReserved2, kHeaderSize - at::kReserved2,
           AllZero(Bytes(h.raw).subspan(at::kReserved2)) ? "all zero" : "not zero");
}

void BatmapFields(const Image& image, std::vector<FieldRow>* out) {
  if (!image.batmap) return;
  namespace at = batmap_at;
  const BatmapHeader& b = *image.batmap;
  Rows rows(out, "batmap", image.batmap_offset, b.raw);
  rows.Add("cookie", at::kCookie, 8, std::string(kBatmapCookie));
  rows.Add("batmap_offset", at::kOffset, 8, Hex(b.offset));
  rows.Add("batmap_size", at::kSectors, 4, fmt::format("{} bytes", image.BatmapBytes()));
  rows.Add("batmap_version", at::kVersion, 4, VersionText(b.version));
  rows.Add("checksum", at::kChecksum, 4, "of the map");
  rows.Add("marker", at::kMarker, 1, "");
  rows.Add("key_flag", at::kKeyFlag, 1, b.key_flag != 0 ? "the data is encrypted" : "");
  rows.Add("key_nonce", at::kKeyNonce, 32, "");
  rows.Add("key_hash", at::kKeyHash, 32, "");
}

// What was concluded where the stored fields cannot be gone by.
void Conclusions(const Image& image, std::vector<FieldRow>* out) {
  auto add = [&](const char* name, std::optional<uint64_t> value, std::string meaning) {
    out->push_back({"disk", name, 0, 0, value, "", std::move(meaning)});
  };
  add("kind", std::nullopt, std::string(ToText(image.kind)));
  add("virtual_size", image.VirtualSize(), HumanSize(image.VirtualSize()));
  add("virtual_size_in_qemu", QemuVirtualSize(image.footer),
      HumanSize(QemuVirtualSize(image.footer)));
  auto provenance = [&](const char* name, const Provenance& from) {
    if (from.origin == Origin::kStored && from.confidence == 1) return;
    add(name, std::nullopt, fmt::format("{} (confidence {:.2f})", from.evidence, from.confidence));
  };
  provenance("footer_gone_by", image.footer_from);
  if (image.sparse()) provenance("header_gone_by", image.header_from);
}

}  // namespace

std::vector<FieldRow> FieldsOf(const Image& image) {
  std::vector<FieldRow> rows;
  FooterFields(image.leading, "footer-copy", &rows);
  if (image.sparse()) {
    HeaderFields(image, &rows);
    BatmapFields(image, &rows);
  }
  FooterFields(image.trailing, "footer", &rows);
  Conclusions(image, &rows);
  return rows;
}

}  // namespace imgfsck::vhd
