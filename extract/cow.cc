// SPDX-License-Identifier: Apache-2.0
// Of a COW file: header and bitmap.
#include <algorithm>

#include "analyzers/cow/state.h"
#include "extract/selection.h"

namespace imgfsck {

Status SelectCow(Selection& selection) {
  IMG_RETURN_IF_ERROR(KeepMetadataRegions(selection));
  const cow::Image& image = *cow::StateOf(selection.report).image;
  const cow::Header& header = image.header;
  selection.copy.Keep(0, header.spec().header_length);
  // Around the bitmap, where a check looked for what does not belong there.
  const uint64_t data = image.walkable ? image.geometry.data_offset : 0;
  for (const auto& [begin, end] : selection.read.Ranges()) {
    if (begin < data) selection.copy.Keep(begin, std::min(end, data) - begin);
  }
  if (!selection.options.redact) return Ok();
  const cow::Layout& layout = header.spec();
  const uint64_t end =
      std::min<uint64_t>(layout.path_offset + layout.path_length, image.head.size());
  if (layout.path_offset >= end) return Ok();
  // Behind the name's NUL there may be the end of a longer name that stood here before.
  const Bytes field = Bytes(image.head).subspan(layout.path_offset, end - layout.path_offset);
  selection.copy.Replace(layout.path_offset, WithoutText(field, true));
  selection.copy.Replace(layout.path_offset, AsBytes(selection.RedactedPath(header.path)));
  return Ok();
}

}  // namespace imgfsck
