// SPDX-License-Identifier: Apache-2.0
// What the policies of the formats share: a list of reasons with the bytes they lie in.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "io/byte_source.h"
#include "triage/reasons.h"

namespace imgfsck {

class ReasonCollector {
 public:
  explicit ReasonCollector(const ByteSource& file) : file_(file) {}

  void Add(ReasonCode code, std::string detail = {}) { AddAt(code, 0, 0, std::move(detail)); }
  // With the bytes of the file at [offset, offset + length), as far as there are any.
  void AddAt(ReasonCode code, uint64_t offset, uint64_t length, std::string detail = {});
  // A name that stands at `offset`: `code` for its being there, and what speaks against itself.
  void AddName(ReasonCode code, std::string_view name, uint64_t offset, uint64_t length);

  const ByteSource& file() const { return file_; }
  std::vector<Reason> Take() { return std::move(reasons_); }

 private:
  const ByteSource& file_;
  std::vector<Reason> reasons_;
};

// The formats that are judged by their own fields; each in a file of its own.
void JudgeQcow2(ReasonCollector& out);
void JudgeQcow1(ReasonCollector& out);
void JudgeCow(ReasonCollector& out);
void JudgeVhd(ReasonCollector& out);
// Formats that are only recognised. False when nothing at all is known about `format`. A disk
// larger than `most_disk` is absurd.
bool JudgeForeign(std::string_view format, uint64_t most_disk, ReasonCollector& out);
void JudgeVmdk(uint64_t most_disk, ReasonCollector& out);

}  // namespace imgfsck
