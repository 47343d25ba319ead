// SPDX-License-Identifier: Apache-2.0
// Ranges, layers and numbers in words, the same in every report for people. What comes from an
// image is made printable here.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/units.h"
#include "model/rows.h"

namespace imgfsck {

std::string RangeText(uint64_t offset, uint64_t length);  // "0x50000-0x5ffff (64 KiB)"
std::string Plural(uint64_t count, std::string_view one, std::string_view many);  // "1 leak"
std::string ShellQuoted(std::string_view word);  // for a command line to copy; printable

// The names that people know the layers by.
class LayerNames {
 public:
  explicit LayerNames(const ImageRows* rows);
  // "the active disk", "snapshot 2 \"before the upgrade\"", or "" for no layer.
  std::string Of(const std::string& layer) const;
  // "guest 0x0-0xffff (64 KiB) of snapshot 2"
  std::string GuestText(const GuestRange& range, const std::string& layer) const;

 private:
  std::map<std::string, std::string> names_;
};

}  // namespace imgfsck
