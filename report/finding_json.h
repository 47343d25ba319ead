// SPDX-License-Identifier: Apache-2.0
// A finding as a JSON object, the same in every report for machines.
#pragma once

#include <optional>

#include "base/json_writer.h"
#include "model/finding.h"
#include "report/guest_names.h"

namespace imgfsck {

// The members guest-offset and guest-length, where there is a range.
void WriteGuestRangeJson(const std::optional<GuestRange>& guest, JsonWriter& json);
void WriteFindingJson(const Finding& finding, JsonWriter& json, const GuestNames* names = nullptr);

}  // namespace imgfsck
