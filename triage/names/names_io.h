// SPDX-License-Identifier: Apache-2.0
// How names and questions for them travel through a pipe (archive.h).
#pragma once

#include "model/name_facts.h"
#include "triage/archive.h"

namespace imgfsck {

template <class A, class Tag>
void Fields(A& a, Position<Tag>& v) {
  a(v.value);
}
template <class A, class Offset>
void Fields(A& a, Range<Offset>& v) {
  a(v.offset, v.length);
}
template <class A>
void Fields(A& a, GuestVolume& v) {
  a(v.offset, v.length, v.type, v.mapped, v.trouble);
}
template <class A>
void Fields(A& a, NameHit& v) {
  a(v.range, v.volume);
  a.Choice(v.kind, NameKind::kUnallocated);
  a(v.path, v.file_offset);
}
template <class A>
void Fields(A& a, NamedShare& v) {
  a(v.volume);
  a.Choice(v.kind, NameKind::kUnallocated);
  a(v.path, v.bytes);
}
template <class A>
void Fields(A& a, RangeSetNames& v) {
  a(v.what, v.trouble, v.ranges, v.bytes, v.shares, v.more);
}
template <class A>
void Fields(A& a, NameFacts& v) {
  a(v.done, v.trouble, v.volumes, v.hits, v.more, v.faulted, v.sets);
  if constexpr (A::kReads) {
    auto known = [&](const auto& each) { return each.volume < v.volumes.size(); };
    if (!std::ranges::all_of(v.hits, known)) return a.Fail();
    for (const RangeSetNames& set : v.sets) {
      if (!std::ranges::all_of(set.shares, known)) return a.Fail();
    }
  }
}
template <class A>
void Fields(A& a, NameQuery::Set& v) {
  a(v.what, v.ranges);
}
template <class A>
void Fields(A& a, NameQuery& v) {
  a(v.ranges, v.sets);
}

}  // namespace imgfsck
