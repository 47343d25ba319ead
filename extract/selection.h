// SPDX-License-Identifier: Apache-2.0
// What a format's part of metadata_copy.h works with: it says which bytes stay.
#pragma once

#include <string>
#include <vector>

#include "extract/metadata_copy.h"
#include "extract/names.h"

namespace imgfsck {

struct Selection {
  const ByteSource& source;
  const CheckReport& report;  // of `source`
  RangeSet& read;             // what that check has read
  const MetadataCopyOptions& options;
  KeptBytes& copy;  // to be filled
  std::vector<std::string>& notes;
  Pseudonyms names{};

  void Progress(uint64_t done) const {
    if (options.progress) options.progress("bytes looked at", done, source.Size());
  }
  // What stands for the name of another file; it matters whether that file is there now.
  std::string RedactedPath(const std::string& name);
};

// Keeps the regions of kinds other than data; those of `but` (a kind) stay out.
Status KeepMetadataRegions(Selection& selection, std::string_view but = {});

Status SelectQcow2(Selection& selection);
Status SelectQcow1(Selection& selection);
Status SelectVhd(Selection& selection);
Status SelectCow(Selection& selection);

}  // namespace imgfsck
