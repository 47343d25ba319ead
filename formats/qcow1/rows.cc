// SPDX-License-Identifier: Apache-2.0
// The small tables of the model, for one image, and the ImageRows that offers all of them.
#include <fmt/format.h>

#include "base/text.h"
#include "formats/common/stored.h"
#include "formats/qcow1/walk.h"

namespace imgfsck::qcow1 {
namespace {

std::string Meaning(const Image& image, const FieldSpec& field) {
  const Header& h = image.header;
  if (field.name == "cluster_bits" && GeometryIsSane(h)) {
    return HumanSize(image.geometry.cluster_size);
  }
  if (field.name == "l2_bits" && GeometryIsSane(h)) {
    return fmt::format("{} entries a table", image.geometry.l2_entries);
  }
  if (field.name == "size") return HumanSize(h.size);
  if (field.name == "backing_file_size" && image.backing_name) {
    return Printable(*image.backing_name);
  }
  if (field.name == "crypt_method") {
    return h.crypt_method == kCryptNone ? "none" : image.encrypted() ? "AES-128-CBC" : "unknown";
  }
  if (field.name == "flags") {
    return (image.xen->flags & kXenBigEndianL1) != 0 ? "L1 is big-endian" : "L1 is little-endian";
  }
  return {};
}

void AddFields(const Image& image, std::string_view structure, std::span<const FieldSpec> specs,
               std::vector<FieldRow>* rows) {
  for (const FieldSpec& field : specs) {
    if (!RangeFits(field.offset, field.length, image.head.size())) continue;
    Bytes bytes = Bytes(image.head).subspan(field.offset, field.length);
    uint64_t value = 0;
    for (uint8_t byte : bytes) value = value << 8 | byte;
    FieldRow row{std::string(structure), std::string(field.name), field.offset, field.length, value,
                 HexEncode(bytes),       Meaning(image, field)};
    if (value >> 63 != 0) row.value.reset();
    rows->push_back(std::move(row));
  }
}

class Rows : public ImageRows {
 public:
  Rows(std::unique_ptr<imgfsck::qcow1::Image> image, std::string path)
      : image_(std::move(image)), path_(std::move(path)) {}

  ImageRow Image() const override {
    return {path_,
            "qcow",
            std::to_string(image_->header.version),
            AlignDown(image_->header.size, kSector),
            image_->file_size,
            GeometryIsSane(image_->header) ? image_->geometry.cluster_size : 0,
            StoredBytes(*image_->source)};
  }
  std::vector<FieldRow> Fields() const override { return FieldRows(*image_); }
  std::vector<LinkRow> Links() const override {
    if (!image_->backing_name) return {};
    return {{"backing", *image_->backing_name, "", image_->header.backing_file_offset,
             image_->header.backing_file_size}};
  }

  std::vector<StructurePiece> Structures() const override {
    std::vector<StructurePiece> pieces{{"header", MakeHostRange(0, kHeaderLength)}};
    if (image_->xen) {
      pieces.push_back({"xen-header", MakeHostRange(kXenHeaderOffset, kXenHeaderLength)});
    }
    const Header& h = image_->header;
    if (image_->backing_name) {
      pieces.push_back({"backing-name", MakeHostRange(h.backing_file_offset, h.backing_file_size)});
    }
    if (!image_->walkable || !image_->l1_clear) return pieces;
    pieces.push_back({"l1", MakeHostRange(h.l1_table_offset, image_->geometry.l1_bytes())});
    for (const L1Slot& slot : image_->l1) {
      if (image_->StateOf(slot) != SlotState::kUsable) continue;
      pieces.push_back({fmt::format("l2[{}]", slot.index),
                        MakeHostRange(slot.value, image_->geometry.l2_bytes)});
    }
    return pieces;
  }

  std::unique_ptr<RowCursor<MappingRow>> Mappings(const RowQuery& query) const override {
    return MappingCursor(*image_, query);
  }
  std::unique_ptr<RowCursor<RegionRow>> Regions(const RowQuery& query) const override {
    return RegionCursor(*image_, query);
  }

  const imgfsck::qcow1::Image& image() const { return *image_; }

 private:
  std::unique_ptr<imgfsck::qcow1::Image> image_;
  std::string path_;
};

}  // namespace

std::vector<FieldRow> FieldRows(const Image& image) {
  std::vector<FieldRow> rows;
  AddFields(image, "header", HeaderFields(), &rows);
  if (image.xen) AddFields(image, "xen-header", XenFields(), &rows);
  return rows;
}

std::unique_ptr<ImageRows> MakeRows(std::unique_ptr<Image> image, std::string path) {
  return std::make_unique<Rows>(std::move(image), std::move(path));
}

const Image& ImageOf(const ImageRows& rows) { return static_cast<const Rows&>(rows).image(); }

}  // namespace imgfsck::qcow1
