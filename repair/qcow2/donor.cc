// SPDX-License-Identifier: Apache-2.0
#include "repair/qcow2/donor.h"

#include <algorithm>

#include "analyzers/qcow2/l2_walk.h"
#include "base/text.h"
#include "formats/common/tolerant.h"

namespace imgfsck::qcow2 {

Result<Donor> Donor::Open(const ByteSource* source, const Image& image) {
  Donor donor;
  if (source == nullptr) return donor;
  IMG_ASSIGN_OR_RETURN(auto parsed, ParseImage(*source));
  if (!parsed->walkable || parsed->active.entries == 0) {
    donor.why_not_ = "the donor is no qcow2 image whose tables can be found: it lends nothing";
  } else if (parsed->geometry.cluster_bits != image.geometry.cluster_bits ||
             parsed->geometry.extended_l2 != image.geometry.extended_l2) {
    donor.why_not_ =
        "the donor has another cluster size or another kind of tables: it is no older "
        "copy of this image and lends nothing";
  } else if (parsed->has_data_file()) {
    donor.why_not_ = "the donor keeps its data in another file: it lends nothing";
  } else {
    donor.image_ = std::move(parsed);
  }
  return donor;
}

uint64_t Donor::TableOffset(uint64_t column) const {
  if (!usable() || column >= image_->active.entries) return 0;
  uint8_t raw[8];
  std::vector<HostRange> bad;
  ReadTolerant(*image_->source, image_->active.offset + 8 * column, raw, &bad);
  uint64_t offset = LoadBe<uint64_t>(raw) & kOffsetMask;
  bool table = offset != 0 && bad.empty() && offset < image_->file_size &&
               IsAligned(offset, image_->geometry.cluster_size);
  return table ? offset : 0;
}

std::optional<ByteVector> Donor::Table(uint64_t column) const {
  uint64_t offset = TableOffset(column);
  if (offset == 0) return std::nullopt;
  ByteVector bytes(image_->geometry.cluster_size);
  std::vector<HostRange> bad;
  ReadTolerant(*image_->source, offset, bytes, &bad);
  if (!bad.empty() || AllZero(bytes) || Implausible(*image_, bytes)) return std::nullopt;
  return bytes;
}

}  // namespace imgfsck::qcow2
