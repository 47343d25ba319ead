// SPDX-License-Identifier: Apache-2.0
// What imgfsck writes beside its report: maps of lost ranges, rows of a database; and a plan as
// the report wants to hear of it.
#pragma once

#include <string>

#include "model/database_file.h"
#include "repair/engine.h"
#include "report/result.h"

namespace imgfsck {

RepairSummary SummaryOf(const Plan& plan, std::string_view mode);

// Guest ranges of the active disk that cannot be read as they were, as a new ddrescue map.
Status WriteLostMap(const ImageResult& result, const std::string& path);

Status AddToDatabase(const CheckReport& report, int64_t image_id, DatabaseFile* database);

}  // namespace imgfsck
