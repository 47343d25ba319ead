// SPDX-License-Identifier: Apache-2.0
#include "formats/qcow2/fields.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/text.h"

namespace imgfsck::qcow2 {
namespace {

class FieldList {
 public:
  explicit FieldList(const Image& image) : image_(image) {}

  // `value` as stored in `length` bytes at `offset`.
  void Number(std::string structure, std::string_view name, uint64_t offset, unsigned length,
              uint64_t value, std::string meaning = {}) {
    std::array<uint8_t, 8> bytes;
    StoreBe(bytes.data(), value);
    FieldRow row;
    row.structure = std::move(structure);
    row.name = name;
    row.host_offset = offset;
    row.length = length;
    if (value >> 63 == 0) row.value = value;
    row.raw = HexEncode(Bytes(bytes).last(length));
    row.meaning = std::move(meaning);
    rows.push_back(std::move(row));
  }
  void Text(std::string structure, std::string_view name, uint64_t offset, Bytes bytes) {
    FieldRow row;
    row.structure = std::move(structure);
    row.name = name;
    row.host_offset = offset;
    row.length = bytes.size();
    if (bytes.size() <= 64) row.raw = HexEncode(bytes);
    row.meaning = ValidUtf8(AsText(bytes));
    rows.push_back(std::move(row));
  }

  void AddHeader() {
    Bytes cluster = image_.first_cluster;
    for (const FieldSpec& spec : HeaderFields()) {
      if (spec.v3_only && !image_.header.is_v3()) continue;
      if (spec.name == "compression_type" && !image_.header.has_compression_field()) continue;
      if (!RangeFits(spec.offset, spec.length, cluster.size())) continue;
      uint64_t value = 0;
      for (unsigned i = 0; i < spec.length; ++i) value = value << 8 | cluster[spec.offset + i];
      Number("header", spec.name, spec.offset, spec.length, value, Meaning(spec.name, value));
    }
  }

  std::string Meaning(std::string_view name, uint64_t value) const {
    const Header& h = image_.header;
    if (name == "magic") return value == kMagic ? "QFI\\xfb" : "not the qcow2 magic";
    if (name == "size") return HumanSize(value);
    if (name == "cluster_bits" && image_.walkable) return HumanSize(image_.geometry.cluster_size);
    if (name == "crypt_method") {
      return value == 0 ? "none" : value == 1 ? "AES-128-CBC" : value == 2 ? "LUKS" : "unknown";
    }
    if (name == "incompatible_features") return FeatureText(h, 0);
    if (name == "compatible_features") return FeatureText(h, 1);
    if (name == "autoclear_features") return FeatureText(h, 2);
    if (name == "refcount_order" && value <= kMaxRefcountOrder) {
      return fmt::format("{} bits", 1u << value);
    }
    if (name == "compression_type") {
      return value == kDeflate ? "zlib" : value == kZstd ? "zstd" : "unknown";
    }
    if (name == "l1_size" && image_.walkable) {
      return fmt::format("{} needed", image_.L1Min(0));
    }
    return "";
  }

  void AddExtensions() {
    size_t number = 0;
    for (const Extension& e : image_.extensions.records) {
      std::string s = fmt::format("header-extension[{}]", number++);
      Number(s, "type", e.offset, 4, e.type, std::string(ExtensionName(e.type)));
      Number(s, "length", e.offset + 4, 4, e.length);
      if (e.type == kExtFeatureNames) {
        AddFeatureNames(s, e);
      } else if (e.type == kExtBitmaps && image_.bitmaps_extension) {
        const BitmapsExtension& b = *image_.bitmaps_extension;
        Number(s, "nb_bitmaps", e.offset + 8, 4, b.nb_bitmaps);
        Number(s, "reserved", e.offset + 12, 4, b.reserved);
        Number(s, "bitmap_directory_size", e.offset + 16, 8, b.directory_size);
        Number(s, "bitmap_directory_offset", e.offset + 24, 8, b.directory_offset);
      } else if (e.type == kExtEncryption && image_.encryption) {
        Number(s, "offset", e.offset + 8, 8, image_.encryption->offset);
        Number(s, "length_of_header", e.offset + 16, 8, image_.encryption->length);
      } else {
        Text(s, "data", e.offset + 8, e.data);
      }
    }
    if (image_.backing_name) {
      Text("backing-name", "backing_file", image_.header.backing_file_offset,
           AsBytes(*image_.backing_name));
    }
  }

  void AddFeatureNames(const std::string& structure, const Extension& e) {
    static constexpr std::string_view kTypes[] = {"incompatible", "compatible", "autoclear"};
    for (size_t at = 0; at + kFeatureNameSize <= e.data.size(); at += kFeatureNameSize) {
      Bytes name = e.data.subspan(at + 2, kFeatureNameSize - 2);
      auto end = std::find(name.begin(), name.end(), uint8_t{0});
      std::string type = e.data[at] < 3 ? std::string(kTypes[e.data[at]]) : "unknown type";
      Text(structure, fmt::format("{} bit {}", type, e.data[at + 1]), e.offset + 8 + at + 2,
           name.first(static_cast<size_t>(end - name.begin())));
    }
  }

  void AddSnapshots() {
    for (size_t i = 0; i < image_.snapshots.entries.size(); ++i) {
      const Snapshot& s = image_.snapshots.entries[i];
      std::string name = fmt::format("snapshot[{}]", i);
      uint64_t at = s.host_offset;
      Number(name, "l1_table_offset", at, 8, s.l1_table_offset);
      Number(name, "l1_size", at + 8, 4, s.l1_size);
      Number(name, "date_sec", at + 16, 4, s.date_sec, Date(s.date_sec));
      Number(name, "date_nsec", at + 20, 4, s.date_nsec);
      Number(name, "vm_clock_nsec", at + 24, 8, s.vm_clock_nsec);
      Number(name, "vm_state_size_32", at + 32, 4, s.vm_state_size_32);
      Number(name, "extra_data_size", at + 36, 4, s.extra_data_size);
      if (s.extra.size() >= 8) {
        Number(name, "vm_state_size", at + 40, 8, s.vm_state_size(), HumanSize(s.vm_state_size()));
      }
      if (auto size = s.disk_size()) Number(name, "disk_size", at + 48, 8, *size, HumanSize(*size));
      uint64_t text = at + 40 + s.extra.size();
      Text(name, "id", text, AsBytes(s.id));
      Text(name, "name", text + s.id.size(), AsBytes(s.name));
    }
  }

  void AddBitmaps() {
    for (size_t i = 0; i < image_.bitmaps.entries.size(); ++i) {
      const Bitmap& b = image_.bitmaps.entries[i];
      std::string name = fmt::format("bitmap[{}]", i);
      uint64_t at = b.host_offset;
      Number(name, "bitmap_table_offset", at, 8, b.table_offset);
      Number(name, "bitmap_table_size", at + 8, 4, b.table_size);
      Number(name, "flags", at + 12, 4, b.flags,
             fmt::format("{}{}", b.in_use() ? "in use" : "not in use",
                         (b.flags & kBitmapAuto) != 0 ? ", enabled" : ""));
      Number(name, "type", at + 16, 1, b.type);
      Number(name, "granularity_bits", at + 17, 1, b.granularity_bits);
      Number(name, "name_size", at + 18, 2, b.name.size());
      Number(name, "extra_data_size", at + 20, 4, b.extra_data_size);
      Text(name, "name", at + 24 + b.extra_data_size, AsBytes(b.name));
    }
  }

  void AddLuks() {
    if (!image_.luks) return;
    const LuksHeader& l = *image_.luks;
    uint64_t at = image_.encryption->offset;
    Number("luks", "version", at + 6, 2, l.version);
    Text("luks", "cipher_name", at + 8, AsBytes(l.cipher));
    Text("luks", "cipher_mode", at + 40, AsBytes(l.mode));
    Text("luks", "hash", at + 72, AsBytes(l.hash));
    Number("luks", "payload_offset", at + 104, 4, l.payload_sector);
    Number("luks", "key_bytes", at + 108, 4, l.master_key_length);
    Text("luks", "uuid", at + 168, AsBytes(l.uuid));
    for (size_t i = 0; i < l.slots.size(); ++i) {
      const LuksSlot& slot = l.slots[i];
      std::string name = fmt::format("luks/slot[{}]", i);
      uint64_t place = at + 208 + 48 * i;
      Number(name, "state", place, 4, slot.state,
             slot.state == kLuksSlotActive     ? "active"
             : slot.state == kLuksSlotInactive ? "not in use"
                                               : "unknown");
      Number(name, "iterations", place + 4, 4, slot.iterations);
      Number(name, "key_material_offset", place + 40, 4, slot.key_sector);
      Number(name, "stripes", place + 44, 4, slot.stripes);
    }
  }

  static std::string Date(uint32_t seconds) {
    return fmt::format("{:%Y-%m-%d %H:%M:%S} UTC", fmt::gmtime(static_cast<time_t>(seconds)));
  }

  std::vector<FieldRow> rows;

 private:
  const Image& image_;
};

}  // namespace

std::vector<FieldRow> MakeFields(const Image& image) {
  FieldList list(image);
  list.AddHeader();
  if (image.walkable) {
    list.AddExtensions();
    list.AddSnapshots();
    list.AddBitmaps();
    list.AddLuks();
  }
  return std::move(list.rows);
}

}  // namespace imgfsck::qcow2
