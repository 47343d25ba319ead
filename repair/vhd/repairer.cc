// SPDX-License-Identifier: Apache-2.0
#include "repair/vhd/repairer.h"

#include <array>

#include "base/text.h"
#include "formats/vhd/mapping.h"
#include "repair/guest_compare.h"
#include "repair/vhd/passes.h"

namespace imgfsck {
namespace vhd {
namespace {

// The disk as QEMU reads it today: what a repair must not change. A parent is the same as long as
// its id is, under whatever name.
class ReadableRows : public ImageRows {
 public:
  explicit ReadableRows(std::shared_ptr<const vhd::Image> image) : image_(std::move(image)) {}
  ImageRow Image() const override { return {}; }
  std::vector<FieldRow> Fields() const override { return {}; }
  std::vector<StructurePiece> Structures() const override { return {}; }
  std::vector<LinkRow> Links() const override {
    if (image_->kind != Kind::kDifferencing) return {};
    return {{"parent", HexEncode(image_->header.parent_id), "vpc", 0, 0}};
  }
  std::unique_ptr<RowCursor<MappingRow>> Mappings(const RowQuery& query) const override {
    return MappingsOf(*image_, query, Reader::kQemu);
  }
  std::unique_ptr<RowCursor<RegionRow>> Regions(const RowQuery& query) const override {
    return RegionsOf(*image_, query);
  }

 private:
  std::shared_ptr<const vhd::Image> image_;
};

CheckReport ReadableView(const CheckReport& report) {
  CheckReport view;
  view.format = report.format;
  view.rows = std::make_unique<ReadableRows>(StateOf(report).image);
  return view;
}

Result<std::vector<LayerRange>> GuestChanges(const CheckReport& before,
                                             const ByteSource& before_bytes,
                                             const CheckReport& after, const Overlay& after_bytes) {
  RangeSet patched;
  IMG_RETURN_IF_ERROR(after_bytes.ForEachPatch([&](uint64_t offset, Bytes, Bytes bytes) {
    patched.Add(offset, bytes.size());
    return Ok();
  }));
  const uint64_t old_size = after_bytes.base().Size(), new_size = after_bytes.Size();
  if (new_size < old_size) patched.Add(new_size, old_size - new_size);
  const CheckReport old_view = ReadableView(before), new_view = ReadableView(after);
  return CompareGuests({old_view, before_bytes}, {new_view, after_bytes}, std::move(patched), {});
}

}  // namespace
}  // namespace vhd

namespace {

// The sheet's order. A pass is a constant in its own file; here is only its turn.
std::span<const Pass> Passes() {
  static const std::array passes = {vhd::kFooterPass, vhd::kHeaderPass,  vhd::kTablePass,
                                    vhd::kOrphanPass, vhd::kBlockPass,   vhd::kBitmapPass,
                                    vhd::kBatmapPass, vhd::kLocatorPass, vhd::kRelinkPass,
                                    vhd::kPlacePass,  vhd::kLeakPass,    vhd::kAzurePass};
  return passes;
}

}  // namespace

const Repairer kVhdRepairer{"vpc", Passes(), vhd::GuestChanges};

}  // namespace imgfsck
