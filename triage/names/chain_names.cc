// SPDX-License-Identifier: Apache-2.0
#include "triage/names/chain_names.h"

#include <fmt/format.h>

#include "triage/names/guest_names.h"

namespace imgfsck {
namespace {

constexpr size_t kMostBitmaps = 16;  // whose files are looked up

// Dirty ranges of a bitmap, as a set of the query. What stands in the way is put into `trouble`.
NameQuery::Set DirtySet(Driver& driver, const BitmapInfo& bitmap, std::string* trouble) {
  NameQuery::Set set{bitmap.name, {}};
  if (auto dirty = driver.BitmapDirty(bitmap.name)) {
    set.ranges = std::move(*dirty);
  } else {
    *trouble = dirty.error().message;
  }
  return set;
}

}  // namespace

NameFacts NamesOfChain(Chain& chain, NameQuery query, bool bitmaps) {
  const size_t first = query.sets.size();
  std::vector<std::string> troubles;
  if (bitmaps) {
    Driver& image = *chain.layers().front()->driver;
    for (const BitmapInfo& bitmap : image.Bitmaps()) {
      std::string& trouble = troubles.emplace_back();
      if (troubles.size() <= kMostBitmaps) {
        query.sets.push_back(DirtySet(image, bitmap, &trouble));
      } else {
        query.sets.push_back({bitmap.name, {}});
        trouble = fmt::format("only the first {} bitmaps are looked at", kMostBitmaps);
      }
    }
  }
  Driver& driver = chain.driver();
  GuestDisk disk;
  disk.size = driver.VirtualSize();
  disk.read = [&](uint64_t offset, MutableBytes buffer) { return driver.Read(offset, buffer); };
  NameFacts facts = AnswerNames(disk, query);
  for (size_t i = 0; i < troubles.size(); ++i) {
    if (!troubles[i].empty()) facts.sets[first + i].trouble = troubles[i];
  }
  return facts;
}

}  // namespace imgfsck
