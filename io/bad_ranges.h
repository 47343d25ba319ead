// SPDX-License-Identifier: Apache-2.0
// GNU ddrescue map files: read as the list of what a medium could not give (--bad-map), written as
// the list of guest ranges that are lost (--lost-map).
#pragma once

#include <string>
#include <vector>

#include "io/byte_source.h"

namespace imgfsck {

// Ranges of a ddrescue map whose status is not '+' (finished), ascending and merged.
Result<std::vector<HostRange>> ParseDdrescueMap(std::string_view text);
Result<std::vector<HostRange>> ReadDdrescueMap(const std::string& path);

// A map over [0, size): '+' everywhere but in `bad` ('-'). Deterministic; no clock, no command
// line. `comments`: lines for its head, without '#'.
std::string FormatDdrescueMap(uint64_t size, const std::vector<GuestRange>& bad,
                              const std::vector<std::string>& comments = {});

// `base` with reads inside `bad` failing with kIo, as the medium would.
class BadRangeSource : public ByteSource {
 public:
  BadRangeSource(const ByteSource& base, std::vector<HostRange> bad);
  uint64_t Size() const override { return base_.Size(); }
  Result<size_t> ReadAt(uint64_t offset, MutableBytes buffer) const override;
  Result<HostExtent> ExtentAt(uint64_t offset) const override { return base_.ExtentAt(offset); }

 private:
  const ByteSource& base_;
  std::vector<HostRange> bad_;
};

}  // namespace imgfsck
