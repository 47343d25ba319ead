// SPDX-License-Identifier: Apache-2.0
// The table that problems.def spells out, and the proof at compile time that it is sound: ids and
// codes unique, codes in lower-kebab with a known prefix, enumerators spelt like their codes.
#include "model/problem.h"

#include <algorithm>
#include <array>
#include <cstddef>

#include "base/result.h"

namespace imgfsck {
namespace {

// clang-format off
constexpr ProblemInfo kTable[] = {
#define X(enumerator, id, code, severity, repair, effect, what, mend, cost)                       \
  {Problem::enumerator, code, Severity::severity, RepairClass::repair, Effect::effect, what, mend, \
   cost},
#include "model/problems.def"
#undef X
};
// clang-format on
constexpr size_t kCount = std::size(kTable);

constexpr std::string_view kEnumerators[] = {
#define X(enumerator, id, code, severity, repair, effect, what, mend, cost) #enumerator,
#include "model/problems.def"
#undef X
};

constexpr std::string_view kPrefixes[] = {"qcow2-", "vhd-", "qcow-", "cow-", "image-", "chain-"};

constexpr size_t kMaxId = [] {
  size_t max = 0;
  for (const ProblemInfo& info : kTable) max = std::max(max, static_cast<size_t>(info.problem));
  return max;
}();

constexpr uint16_t kAbsent = 0xFFFF;
static_assert(kCount < kAbsent);

// Where in kTable an id stands.
constexpr auto kRowOfId = [] {
  std::array<uint16_t, kMaxId + 1> rows{};
  rows.fill(kAbsent);
  for (size_t row = 0; row < kCount; ++row) {
    rows[static_cast<size_t>(kTable[row].problem)] = static_cast<uint16_t>(row);
  }
  return rows;
}();

// Of two rows with one id only the later one is found again.
constexpr bool IdsAreUnique() {
  for (size_t row = 0; row < kCount; ++row) {
    if (kRowOfId[static_cast<size_t>(kTable[row].problem)] != row) return false;
  }
  return true;
}
static_assert(IdsAreUnique(), "problems.def: an id is used twice");

constexpr bool IsLower(char c) { return c >= 'a' && c <= 'z'; }
constexpr bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// Words of letters and digits, with single hyphens between them.
constexpr bool IsLowerKebab(std::string_view code) {
  bool word_before = false;
  for (char c : code) {
    bool word = IsLower(c) || IsDigit(c);
    if (!word && (c != '-' || !word_before)) return false;
    word_before = word;
  }
  return word_before;
}

constexpr bool HasKnownPrefix(std::string_view code) {
  return std::any_of(std::begin(kPrefixes), std::end(kPrefixes),
                     [&](std::string_view prefix) { return code.starts_with(prefix); });
}

// kQcow2HdrMagic for qcow2-hdr-magic. Enumerators are unique (the compiler sees to it), so codes
// that all agree with theirs are unique too.
constexpr bool AgreesWithCode(std::string_view enumerator, std::string_view code) {
  if (!enumerator.starts_with('k')) return false;
  size_t at = 1;
  bool word_starts = true;
  for (char c : code) {
    if (c == '-') {
      word_starts = true;
      continue;
    }
    char expected = word_starts && IsLower(c) ? static_cast<char>(c - 'a' + 'A') : c;
    if (at == enumerator.size() || enumerator[at++] != expected) return false;
    word_starts = false;
  }
  return at == enumerator.size();
}

constexpr bool CodesAreSound() {
  for (size_t row = 0; row < kCount; ++row) {
    std::string_view code = kTable[row].code;
    if (!IsLowerKebab(code) || !HasKnownPrefix(code)) return false;
    if (!AgreesWithCode(kEnumerators[row], code)) return false;
  }
  return true;
}
static_assert(CodesAreSound(),
              "problems.def: a code is not lower-kebab, has no known prefix, or "
              "differs from its enumerator");

constexpr bool IsPlainSentence(std::string_view text) {
  return !text.empty() && !text.ends_with('.') && text.find('"') == std::string_view::npos;
}

// An info is never repaired; what has no repair costs nothing; a repair says what it does.
constexpr bool RowsAreConsistent() {
  for (const ProblemInfo& info : kTable) {
    if (!IsPlainSentence(info.what) || !IsPlainSentence(info.mend)) return false;
    if (!IsPlainSentence(info.cost)) return false;
    bool none = info.repair == RepairClass::kNone;
    if (info.severity == Severity::kInfo && !none) return false;
    if (none != info.mend.starts_with("nothing")) return false;
    if (none && info.cost != "nothing") return false;
    // Warnings get only repairs that change no readable guest byte.
    if (info.severity == Severity::kWarning && info.repair == RepairClass::kAll) return false;
  }
  return true;
}
static_assert(RowsAreConsistent(), "problems.def: severity, repair class and texts disagree");

}  // namespace

std::span<const ProblemInfo> AllProblems() { return kTable; }

const ProblemInfo& InfoOf(Problem problem) {
  auto id = static_cast<size_t>(problem);
  IMG_CHECK(id <= kMaxId && kRowOfId[id] != kAbsent);
  return kTable[kRowOfId[id]];
}

const ProblemInfo* FindProblem(std::string_view code) {
  for (const ProblemInfo& info : kTable) {
    if (info.code == code) return &info;
  }
  return nullptr;
}

std::string_view ToText(Severity severity) {
  switch (severity) {
    case Severity::kInfo:
      return "info";
    case Severity::kWarning:
      return "warning";
    case Severity::kLeak:
      return "leak";
    case Severity::kCorruption:
      return "corruption";
  }
  return "unknown";
}

std::string_view ToText(RepairClass repair) {
  switch (repair) {
    case RepairClass::kNone:
      return "none";
    case RepairClass::kSafe:
      return "safe";
    case RepairClass::kAll:
      return "all";
  }
  return "unknown";
}

std::string_view ToText(Effect effect) {
  switch (effect) {
    case Effect::kNone:
      return "none";
    case Effect::kWrong:
      return "wrong";
    case Effect::kStale:
      return "stale";
    case Effect::kZero:
      return "zero";
    case Effect::kUnreadable:
      return "unreadable";
  }
  return "unknown";
}

}  // namespace imgfsck
