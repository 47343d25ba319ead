// SPDX-License-Identifier: Apache-2.0
// imgdump's page about one image: every field with its offset, snapshots, bitmaps, the files it
// names, where its structures lie and where its space goes. As text and as JSON.
#pragma once

#include "base/text_writer.h"
#include "model/rows.h"

namespace imgfsck {

Status WriteDumpText(const ImageRows& rows, TextWriter& out);
Status WriteDumpJson(const ImageRows& rows, TextWriter& out);  // one line

// What the file's bytes are claimed for, kind by kind in the order they first appear. A cluster
// that several snapshots share counts for each.
struct SpaceUse {
  std::string_view kind;
  uint64_t ranges = 0, bytes = 0;
};
Result<std::vector<SpaceUse>> SpaceByKind(const ImageRows& rows);

}  // namespace imgfsck
