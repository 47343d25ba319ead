// SPDX-License-Identifier: Apache-2.0
#include "triage/names/guest_names.h"

namespace imgfsck {
namespace {

constexpr size_t kMostSetHits = 1'000'000;  // looked at, of a set
constexpr size_t kMostShares = 10'000;      // listed, of a set

}  // namespace

NameFacts AnswerNames(const GuestDisk& disk, const NameQuery& query) {
  NameFacts facts = NameRanges(disk, query.ranges);
  for (const NameQuery::Set& set : query.sets) {
    RangeSetNames& names = facts.sets.emplace_back();
    names.what = set.what;
    names.ranges = set.ranges.size();
    for (const GuestRange& range : set.ranges) names.bytes += range.length;
    if (set.ranges.empty()) continue;
    NameFacts found = NameRanges(disk, set.ranges, kMostSetHits);
    names.trouble = found.trouble;
    names.more = found.more;
    names.shares = SharesOf(found);
    if (names.shares.size() > kMostShares) {
      names.shares.resize(kMostShares);
      names.more = true;
    }
  }
  return facts;
}

#ifndef IMGFSCK_HAVE_TSK
#define IMGFSCK_HAVE_TSK 0
#endif
#if !IMGFSCK_HAVE_TSK
bool CanNameFiles() { return false; }

NameFacts NameRanges(const GuestDisk&, std::vector<GuestRange>, size_t) {
  NameFacts facts;
  facts.trouble = "this build is without The Sleuth Kit's library (libtsk)";
  return facts;
}
#endif

}  // namespace imgfsck
