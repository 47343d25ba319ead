// SPDX-License-Identifier: Apache-2.0
// Why an untrusted image should not be opened, in one table (reasons.def), and what a policy makes
// of it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"

namespace imgfsck {

enum class ReasonCode : uint8_t {
#define X(enumerator, code, openstack, kubevirt, strict, what, answers) enumerator,
#include "triage/reasons.def"
#undef X
  kEnd,  // how many there are
};

enum class Policy : uint8_t { kOpenstack, kKubevirt, kStrict };
std::optional<Policy> ParsePolicy(std::string_view name);
std::string_view ToText(Policy policy);

// What a reason does to a verdict.
enum class Weight : uint8_t { kNote, kDoubt, kUnsafe };

struct ReasonInfo {
  ReasonCode code;
  std::string_view name;     // "ref-backing"
  Weight weights[3];         // by Policy
  std::string_view what;     // a sentence
  std::string_view answers;  // CVE numbers
};
std::span<const ReasonInfo> AllReasons();
const ReasonInfo& InfoOf(ReasonCode code);

inline constexpr size_t kReasonBytes = 64;  // shown of the bytes that a reason lies in

struct Reason {
  ReasonCode code{};
  uint64_t offset = 0;  // in the file
  uint64_t length = 0;  // of the place; 0: it has none
  ByteVector bytes;     // that stand there, at most kReasonBytes
  std::string detail;   // this case's values; untrusted where it quotes the image
};

// By code, then by place. Equal ones are left out.
void SortReasons(std::vector<Reason>* reasons);

enum class Verdict : uint8_t { kSafe, kUndecidable, kUnsafe };
std::string_view ToText(Verdict verdict);  // "safe", "undecidable", "unsafe"
Weight WeightOf(ReasonCode code, Policy policy);
Verdict Judge(const std::vector<Reason>& reasons, Policy policy);

// The table of reasons as a piece of documentation.
std::string ReasonsMarkdown();

}  // namespace imgfsck
