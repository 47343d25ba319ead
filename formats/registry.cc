// SPDX-License-Identifier: Apache-2.0
// The table of formats. A new format: its include, its line.
#include <algorithm>
#include <array>

#include "formats/cow/driver.h"
#include "formats/format.h"
#include "formats/qcow1/driver.h"
#include "formats/qcow2/format.h"
#include "formats/raw/format.h"
#include "formats/vhd/format.h"

namespace imgfsck {
namespace {

// Where two probes are equally sure, the earlier one wins.
constexpr std::array kFormats = {
    &kQcow2Format, &qcow1::kFormat, &vhd::kFormat, &cow::kFormat, &kRawFormat,
};

}  // namespace

std::span<const Format* const> AllFormats() { return kFormats; }

const Format* FindFormat(std::string_view name_or_alias) {
  for (const Format* format : kFormats) {
    const auto& aliases = format->aliases;
    if (format->name == name_or_alias ||
        std::find(aliases.begin(), aliases.end(), name_or_alias) != aliases.end()) {
      return format;
    }
  }
  return nullptr;
}

const Format* ProbeFormat(const ByteSource& source) {
  const Format* best = nullptr;
  ProbeScore best_score = ProbeScore::kNo;
  for (const Format* format : kFormats) {
    const ProbeScore score = format->probe(source);
    if (score <= best_score) continue;
    best = format;
    best_score = score;
  }
  return best;
}

}  // namespace imgfsck
