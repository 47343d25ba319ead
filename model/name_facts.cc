// SPDX-License-Identifier: Apache-2.0
#include "model/name_facts.h"

#include <iterator>
#include <map>
#include <tuple>

namespace imgfsck {

std::string_view ToText(NameKind kind) {
  static constexpr std::string_view kTexts[] = {"file", "resident", "metadata", "unallocated"};
  static_assert(std::size(kTexts) == static_cast<size_t>(NameKind::kEnd));
  return kTexts[static_cast<size_t>(kind)];
}

std::vector<NamedShare> SharesOf(const NameFacts& facts) {
  using Key = std::tuple<uint32_t, std::string_view, NameKind>;
  std::map<Key, uint64_t> bytes;
  for (const NameHit& hit : facts.hits) bytes[{hit.volume, hit.path, hit.kind}] += hit.range.length;
  std::vector<NamedShare> shares;
  for (const auto& [key, sum] : bytes) {
    const auto& [volume, path, kind] = key;
    shares.push_back({volume, kind, std::string(path), sum});
  }
  std::ranges::stable_sort(shares, std::ranges::greater(), &NamedShare::bytes);
  return shares;
}

}  // namespace imgfsck
