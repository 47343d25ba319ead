// SPDX-License-Identifier: Apache-2.0
// The problem registry: everything that can be wrong with an image, in one table (problems.def).
// Severity, wording, repair class and what a repair can cost come from there and nowhere else;
// text, JSON, --explain and the documentation read it through this header.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace imgfsck {

// Ordered: a higher value is worse.
enum class Severity : uint8_t { kInfo, kWarning, kLeak, kCorruption };

// The gentlest repair mode that mends it.
enum class RepairClass : uint8_t { kNone, kSafe, kAll };

// What the guest sees of it, unless the finding says otherwise.
enum class Effect : uint8_t { kNone, kWrong, kStale, kZero, kUnreadable };

// X(enumerator, id, code, severity, repair, effect, what, mend, cost)
//   id      permanent, append-only, unique; never reused
//   code    permanent, lower-kebab, format prefix first
//   what    one plain sentence: what is wrong
//   mend    what a repair does; "nothing" where there is none
//   cost    what a repair can cost; "nothing" where it costs nothing
enum class Problem : uint16_t {
#define X(enumerator, id, code, severity, repair, effect, what, mend, cost) enumerator = (id),
#include "model/problems.def"
#undef X
};

struct ProblemInfo {
  Problem problem;
  std::string_view code;
  Severity severity;
  RepairClass repair;
  Effect effect;
  std::string_view what, mend, cost;
};

std::span<const ProblemInfo> AllProblems();             // in the order of problems.def
const ProblemInfo& InfoOf(Problem problem);             // O(1)
const ProblemInfo* FindProblem(std::string_view code);  // null when unknown

std::string_view ToText(Severity severity);   // "corruption" ...
std::string_view ToText(RepairClass repair);  // "none", "safe", "all"
std::string_view ToText(Effect effect);       // "none", "wrong" ...

}  // namespace imgfsck
