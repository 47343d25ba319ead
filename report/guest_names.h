// SPDX-License-Identifier: Apache-2.0
// Names of the guest's files in the reports: at the findings that concern them, and as a whole.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/json_writer.h"
#include "base/text_writer.h"
#include "model/finding.h"
#include "model/name_facts.h"

namespace imgfsck {

// What the guest keeps beside a range of the file that nobody claims.
struct Neighbours {
  std::optional<GuestRange> before, after;
};

// All that is known of one image's files.
struct GuestNames {
  std::map<std::string, NameFacts> layers;    // "active", snapshots' ids
  std::map<uint64_t, Neighbours> neighbours;  // of the unclaimed range at this host offset

  const NameFacts* Of(const std::string& layer) const;  // null: nothing asked or known
};

// The beginning of each line: " /etc/passwd, from its byte 0x1000 on (4 KiB)". At most `most`.
std::vector<std::string> NameTexts(const NameFacts& facts, const GuestRange& range, size_t most);
// A path as people read it: printable, and of which partition where there are several.
std::string PathText(const NameFacts& facts, uint32_t volume, std::string_view path);
// The lines at a finding, and what they begin with.
struct NameLine {
  std::string_view label;
  std::string text;
};
std::vector<NameLine> LinesFor(const GuestNames& names, const Finding& finding, size_t most);
// What concerns the image as a whole: why names are missing, what bitmaps say has changed.
void WriteNamesText(const GuestNames& names, size_t most, TextWriter& out);
// Why names are missing, what was looked at; `of`: of which disk, as " of snapshot 1".
void WriteNameFactsText(const NameFacts& facts, std::string_view of, TextWriter& out);
// The files of sets of ranges, a line each behind a heading.
void WriteSetText(const NameFacts& facts, const RangeSetNames& set, std::string_view heading,
                  size_t most, TextWriter& out);

// "names": [...] of a finding, and "neighbours", where there are any.
void WriteNamesJson(const GuestNames& names, const Finding& finding, JsonWriter& json);
// "names": [...] of a range.
void WriteRangeNamesJson(const GuestNames& names, const std::string& layer, const GuestRange& range,
                         JsonWriter& json);
// An array of what lies in the range.
void WriteHitsJson(const NameFacts& facts, const GuestRange& range, JsonWriter& json);
// One object. `list`: with all hits.
void WriteNameFactsJson(const NameFacts& facts, bool list, JsonWriter& json);
void WriteSetJson(const RangeSetNames& set, JsonWriter& json);

}  // namespace imgfsck
