// SPDX-License-Identifier: Apache-2.0
// Names of the guest's files as tables of an SQLite database (triage/names/schema.sql).
#pragma once

#include <string>

#include "model/name_facts.h"
#include "triage/report/inserter.h"

namespace imgfsck {

extern const char kNamesSchemaSql[];

class NameTables {
 public:
  // Makes the tables.
  static Result<NameTables> Create(sqlite3* db);
  Status Add(int64_t image_id, const std::string& layer, const NameFacts& names);

 private:
  Status Rows(int64_t image_id, const std::string& layer, const NameFacts& names);
  sqlite3* db_ = nullptr;
};

}  // namespace imgfsck
