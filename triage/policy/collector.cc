// SPDX-License-Identifier: Apache-2.0
#include "triage/policy/collector.h"

#include <algorithm>

#include "base/checked.h"
#include "triage/policy/names.h"

namespace imgfsck {

void ReasonCollector::AddAt(ReasonCode code, uint64_t offset, uint64_t length, std::string detail) {
  Reason reason;
  reason.code = code;
  reason.offset = offset;
  reason.length = length;
  reason.detail = std::move(detail);
  const uint64_t begin = std::min(offset, file_.Size());
  const uint64_t stored = std::min({length, file_.Size() - begin, uint64_t{kReasonBytes}});
  reason.bytes.resize(stored);
  if (stored > 0 && !ReadExact(file_, offset, reason.bytes)) reason.bytes.clear();
  reasons_.push_back(std::move(reason));
}

void ReasonCollector::AddName(ReasonCode code, std::string_view name, uint64_t offset,
                              uint64_t length) {
  AddAt(code, offset, length, std::string(name));
  for (ReasonCode more : JudgeName(name)) AddAt(more, offset, length, std::string(name));
}

}  // namespace imgfsck
