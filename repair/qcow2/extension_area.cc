// SPDX-License-Identifier: Apache-2.0
#include "repair/qcow2/extension_area.h"

#include <algorithm>

namespace imgfsck::qcow2 {

void RewriteExtensions(const ExtensionArea& area, MutableBytes cluster,
                       const std::function<bool(const Extension&)>& keep) {
  ByteVector out;
  for (const Extension& record : area.records) {
    if (!keep(record) || record.data.size() < record.length) continue;
    size_t at = out.size();
    out.resize(at + 8 + AlignUp(record.length, 8));
    PutBe(out, at, record.type);
    PutBe(out, at + 4, record.length);
    std::ranges::copy(record.data, out.begin() + static_cast<ptrdiff_t>(at) + 8);
  }
  out.resize(out.size() + 8);  // END
  uint64_t end = std::max(area.end, area.begin);
  out.resize(std::min<uint64_t>(std::max<uint64_t>(out.size(), end - area.begin),
                                cluster.size() - area.begin));
  std::ranges::copy(out, cluster.begin() + static_cast<ptrdiff_t>(area.begin));
}

HeaderArea AreaOf(const Image& image) {
  HeaderArea area;
  area.header = image.header;
  area.fields = image.first_cluster;
  // A header that claims to be longer than its cluster will not be encoded.
  area.fields.resize(std::min(image.header.ExtensionsBegin(), image.geometry.cluster_size));
  for (const Extension& record : image.extensions.records) {
    if (record.data.size() < record.length) continue;
    area.records.push_back({record.type, ByteVector(record.data.begin(), record.data.end())});
  }
  area.backing_name = image.backing_name;
  return area;
}

Result<ByteVector> EncodeFirstCluster(const Image& image, HeaderArea area) {
  if (image.header.backing_file_offset != 0 && !image.backing_name && !area.backing_name) {
    return Error{ErrorCode::kInvalid, "the backing file's name has to be mended first", {}};
  }
  IMG_ASSIGN_OR_RETURN(const ByteVector encoded, area.Encode());
  auto end_of = [](const Header& header, Bytes cluster) {
    uint64_t end = ParseExtensions(header, cluster).end;
    uint64_t name_end = SaturatingAdd(header.backing_file_offset, header.backing_file_size);
    return name_end <= cluster.size() ? std::max(end, name_end) : end;
  };
  uint64_t end = std::max(end_of(area.header, encoded), end_of(image.header, image.first_cluster));
  end = std::min<uint64_t>(end, encoded.size());
  ByteVector cluster = image.first_cluster;
  cluster.resize(std::max<uint64_t>(cluster.size(), end));
  std::copy_n(encoded.begin(), end, cluster.begin());
  return cluster;
}

}  // namespace imgfsck::qcow2
