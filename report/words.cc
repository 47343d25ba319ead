// SPDX-License-Identifier: Apache-2.0
#include "report/words.h"

#include <fmt/format.h>

#include "base/checked.h"
#include "base/text.h"

namespace imgfsck {

std::string RangeText(uint64_t offset, uint64_t length) {
  if (length == 0) return Hex(offset);
  return fmt::format("{:#x}-{:#x} ({})", offset, SaturatingAdd(offset, length - 1),
                     HumanSize(length));
}

std::string Plural(uint64_t count, std::string_view one, std::string_view many) {
  return fmt::format("{} {}", count, count == 1 ? one : many);
}

std::string ShellQuoted(std::string_view word) {
  const std::string text = Printable(word);
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:@%+=,";
  if (!text.empty() && text.find_first_not_of(kPlain) == std::string::npos) return text;
  std::string quoted = "'";
  for (char c : text) {
    if (c == '\'') {
      quoted += "'\\''";
    } else {
      quoted += c;
    }
  }
  return quoted + "'";
}

LayerNames::LayerNames(const ImageRows* rows) {
  if (rows == nullptr) return;
  for (const SnapshotRow& snapshot : rows->Snapshots()) {
    if (!snapshot.name.empty()) names_.emplace(snapshot.id, PrintableStart(snapshot.name));
  }
}

std::string LayerNames::Of(const std::string& layer) const {
  if (layer.empty()) return "";
  if (layer == kActiveLayer) return "the active disk";
  if (layer == kUnlistedLayer) return "a snapshot that is not listed";
  auto name = names_.find(layer);
  if (name == names_.end()) return "snapshot " + PrintableStart(layer);
  return fmt::format("snapshot {} \"{}\"", PrintableStart(layer), name->second);
}

std::string LayerNames::GuestText(const GuestRange& range, const std::string& layer) const {
  std::string text = "guest " + RangeText(range.offset.value, range.length);
  if (!layer.empty()) text += " of " + Of(layer);
  return text;
}

}  // namespace imgfsck
