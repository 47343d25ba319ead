// SPDX-License-Identifier: Apache-2.0
// How the facts travel through a pipe (archive.h). A type's Fields() name all of its members.
#pragma once

#include "triage/archive.h"
#include "triage/facts.h"
#include "triage/names/names_io.h"

namespace imgfsck {

template <class A>
void Fields(A& a, Claimant& v) {
  a(v.layer, v.guest, v.structure);
}

// A problem that the registry does not know cannot be looked up later.
template <class A>
void Fields(A& a, Problem& v) {
  auto number = static_cast<uint64_t>(v);
  a(number);
  if constexpr (A::kReads) {
    for (const ProblemInfo& info : AllProblems()) {
      if (static_cast<uint64_t>(info.problem) != number) continue;
      v = info.problem;
      return;
    }
    a.Fail();
  }
}
template <class A, class E>
void OptionalChoice(A& a, std::optional<E>& v, E last) {
  bool there = v.has_value();
  a(there);
  if constexpr (A::kReads) {
    v.reset();
    if (there) v.emplace();
  }
  if (v) a.Choice(*v, last);
}
template <class A>
void Fields(A& a, Finding& v) {
  Fields(a, v.problem);
  a(v.structure, v.host, v.guest, v.layer, v.count, v.detail, v.evidence, v.confidence);
  OptionalChoice(a, v.severity, Severity::kCorruption);
  OptionalChoice(a, v.repair, RepairClass::kAll);
  OptionalChoice(a, v.effect, Effect::kUnreadable);
  a(v.fixed, v.also);
}
template <class A>
void Fields(A& a, LinkRow& v) {
  a(v.kind, v.name, v.format, v.host_offset, v.length);
}
template <class A>
void Fields(A& a, SnapshotRow& v) {
  a(v.id, v.name, v.host_offset, v.l1_offset, v.l1_entries, v.virtual_size, v.vm_state_size,
    v.date_seconds, v.date_nanoseconds, v.vm_clock_nanoseconds);
}
template <class A>
void Fields(A& a, BitmapRow& v) {
  a(v.name, v.host_offset, v.granularity, v.table_offset, v.table_entries, v.in_use, v.enabled,
    v.consistent);
}
template <class A>
void Fields(A& a, Signature& v) {
  a(v.name);
  a.Choice(v.kind, ContentKind::kFile);
  a(v.offset, v.length);
}
template <class A>
void Fields(A& a, Reason& v) {
  a.Choice(v.code, static_cast<ReasonCode>(static_cast<int>(ReasonCode::kEnd) - 1));
  a(v.offset, v.length, v.bytes, v.detail);
}
template <class A>
void Fields(A& a, IdentityFacts& v) {
  a.Choice(v.kind, FileKind::kImage);
  a(v.trouble, v.format, v.version, v.examined, v.file_size, v.stored, v.virtual_size,
    v.cluster_size, v.in_use, v.id, v.parent_id, v.created, v.parent_mtime, v.signatures,
    v.guest_signatures, v.links, v.snapshots, v.bitmaps);
}
template <class A>
void Fields(A& a, HashFacts& v) {
  a(v.done, v.trouble, v.bytes, v.digests, v.pieces, v.unreadable);
}
template <class A>
void Fields(A& a, Picture& v) {
  a(v.size, v.cell, v.cells, v.bytes);
  if constexpr (A::kReads) {
    for (uint8_t cell : v.cells) {
      if (cell >= static_cast<uint8_t>(CellState::kStates)) return a.Fail();
    }
  }
}
template <class A>
void Fields(A& a, Remnant& v) {
  a(v.host_offset, v.length);
  a.Choice(v.origin, RemnantOrigin::kTrailing);
  a.Choice(v.kind, RemnantClass::kTable);
  a(v.what, v.entropy, v.guest_offset, v.file, v.sha256);
}
template <class A>
void Fields(A& a, RemnantFacts& v) {
  a(v.done, v.remnants, v.count, v.bytes, v.zero_bytes, v.unreadable_bytes, v.bytes_by_origin,
    v.bytes_by_kind);
}
template <class A>
void Fields(A& a, EntropyFacts& v) {
  a(v.done, v.trouble, v.block, v.zero_bytes, v.plain_bytes, v.random_bytes, v.head, v.tail,
    v.plan_on, v.plan_off, v.plan_begin, v.plan_end, v.plan_repeats, v.disk_plain_bytes,
    v.disk_random_bytes, v.disk_plain, v.disk_plain_more, v.file_plain, v.file_plain_more);
}
template <class A>
void Fields(A& a, RuleHit& v) {
  a(v.severity, v.message, v.offset, v.length);
}
template <class A>
void Fields(A& a, RuleFacts& v) {
  a(v.rule, v.trouble, v.hits, v.more);
}
template <class A>
void Fields(A& a, ProblemTotal& v) {
  a(v.code, v.findings, v.units);
}
template <class A>
void Fields(A& a, CheckFacts& v) {
  a(v.done, v.trouble, v.findings, v.totals, v.findings_by_severity, v.units_by_severity,
    v.check_errors, v.image_end_offset, v.total_clusters, v.allocated_clusters);
}

}  // namespace imgfsck
