// SPDX-License-Identifier: Apache-2.0
// The whole run as one SQLite file: the model of every image, and what imgtriage found out besides.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "triage/result.h"

namespace imgfsck {

extern const char kTriageSchemaSql[];

// The model of a file could not be taken over: what its worker wrote is broken.
struct ModelTrouble {
  size_t file = 0;
  std::string message;
};

// `models`: of each file the database that its worker wrote; empty or missing where there is none.
// An existing file at `path` is refused.
Result<std::vector<ModelTrouble>> WriteTriageDatabase(const TriageResult& result,
                                                      const std::vector<std::string>& models,
                                                      const std::string& path);

}  // namespace imgfsck
