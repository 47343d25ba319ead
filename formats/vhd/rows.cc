// SPDX-License-Identifier: Apache-2.0
#include "formats/vhd/rows.h"

#include "base/checked.h"
#include "formats/common/stored.h"
#include "formats/vhd/fields.h"
#include "formats/vhd/links.h"
#include "formats/vhd/mapping.h"

namespace imgfsck::vhd {
namespace {

class VhdRows : public ImageRows {
 public:
  VhdRows(std::shared_ptr<const vhd::Image> image, std::string path)
      : image_(std::move(image)), path_(std::move(path)) {}

  ImageRow Image() const override {
    return {path_,
            "vpc",
            std::string(ToText(image_->kind)),
            image_->VirtualSize(),
            image_->file_size,
            image_->sparse() ? image_->block_size : kSectorSize,
            StoredBytes(*image_->source)};
  }
  std::vector<FieldRow> Fields() const override { return FieldsOf(*image_); }

  std::vector<LinkRow> Links() const override {
    std::vector<LinkRow> links;
    if (image_->kind != Kind::kDifferencing) return links;
    for (const ParentPointer& pointer : ParentPointers(*image_)) {
      std::string name = pointer.path.empty() ? pointer.text.utf8 : pointer.path;
      if (name.empty()) continue;
      links.push_back({"parent", std::move(name), IsNull(image_->header.parent_id) ? "raw" : "vpc",
                       pointer.locator.data_offset, pointer.locator.data_length});
    }
    if (std::string name = ParentName(*image_).utf8; !name.empty()) {
      links.push_back({"parent", std::move(name), IsNull(image_->header.parent_id) ? "raw" : "vpc",
                       image_->header_offset + header_at::kParentName, kParentNameSize});
    }
    return links;
  }

  std::vector<StructurePiece> Structures() const override {
    std::vector<StructurePiece> pieces;
    for (const MetaRegion& r : image_->regions) {
      pieces.push_back({r.name, MakeHostRange(r.offset, r.length)});
    }
    if (image_->trailing.state != SlotState::kAbsent) {
      pieces.push_back({"footer", MakeHostRange(image_->trailing.offset, image_->trailing.length)});
    }
    return pieces;
  }

  std::unique_ptr<RowCursor<MappingRow>> Mappings(const RowQuery& query) const override {
    return MappingsOf(*image_, query);
  }
  std::unique_ptr<RowCursor<RegionRow>> Regions(const RowQuery& query) const override {
    return RegionsOf(*image_, query);
  }

 private:
  std::shared_ptr<const vhd::Image> image_;
  std::string path_;
};

}  // namespace

std::unique_ptr<ImageRows> MakeRows(std::shared_ptr<const Image> image, std::string path) {
  return std::make_unique<VhdRows>(std::move(image), std::move(path));
}

ProbeScore Probe(const ByteSource& source) {
  if (source.Size() < kLegacyFooterSize) return ProbeScore::kNo;
  auto parsed = ParseImage(source, {.search = false, .make_up = false});
  if (!parsed) return ProbeScore::kNo;
  const Image& image = **parsed;
  if (image.trailing.sound()) {
    return image.trailing_at_end ? ProbeScore::kSure : ProbeScore::kLikely;
  }
  if (image.leading.sound() && image.header_state >= SlotState::kNoCookie) {
    return ProbeScore::kSure;
  }
  if (image.leading.sound() || image.trailing.believable()) return ProbeScore::kLikely;
  bool remains = image.leading.state != SlotState::kAbsent ||
                 image.trailing.state != SlotState::kAbsent ||
                 image.header_state != SlotState::kAbsent;
  return remains ? ProbeScore::kHeaderDamaged : ProbeScore::kNo;
}

Result<std::unique_ptr<ImageRows>> Inspect(const ByteSource& source, const std::string& path) {
  IMG_ASSIGN_OR_RETURN(auto image, ParseImage(source, {}));
  return MakeRows(std::move(image), path);
}

}  // namespace imgfsck::vhd
