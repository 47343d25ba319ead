// SPDX-License-Identifier: Apache-2.0
// Where to look first: which files need a look, in which order, and why, from what is known of them
// and of those that build on them. The same for every report.
#pragma once

#include <string>
#include <vector>

#include "triage/result.h"

namespace imgfsck {

// What makes somebody look at a file: the first that holds.
enum class Attention : uint8_t { kUnsafe, kUndecidable, kDamaged, kSound, kNotAnImage };
std::string_view ToText(Attention attention);  // "unsafe" …
Attention AttentionFor(const TriageResult& result, size_t file);

// Indices of the files in the order in which to look at them. Among those of one kind: first what
// looks encrypted by a plan, then by how many kinds of reasons speak against it, by how many images
// build on it, by the kinds and the amount of damage, by what is unclaimed in it; ties by path.
std::vector<size_t> OrderOfAttention(const TriageResult& result);

// In a line: what stands against a file, the gravest first; "" when nothing does. Printable.
std::string WhyLookAt(const TriageResult& result, size_t file);

// Images that build on a file, directly or not, counted up to kMostDependents.
inline constexpr size_t kMostDependents = 1000;
size_t DependentsOf(const TriageResult& result, size_t file);

// 0, 4, 8 or 12.
int ExitCodeOf(const TriageResult& result);

}  // namespace imgfsck
