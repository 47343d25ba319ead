// SPDX-License-Identifier: Apache-2.0
// The SQLite module behind the virtual tables: SQLite's C callbacks around a scan of rows. The
// tables read and never write. Internal to model/.
#pragma once

#include <string>

#include "model/live_state.h"

namespace imgfsck {

// Registers the module `name` on `db`, whose tables show `state`, which outlives them. Then
// CREATE VIRTUAL TABLE t USING name(t) creates the table t of schema.sql.
Status RegisterLiveModule(sqlite3* db, const std::string& name, LiveState* state);
void UnregisterLiveModule(sqlite3* db, const std::string& name);

bool IsLiveTable(std::string_view name);  // "mapping", "region" …

}  // namespace imgfsck
