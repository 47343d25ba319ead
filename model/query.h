// SPDX-License-Identifier: Apache-2.0
// Runs a user's SQL on a model and writes what it answers. The SQL can read and nothing else: no
// writes, no ATTACH, no settings.
#pragma once

#include <optional>
#include <string_view>

#include "base/text_writer.h"
#include "model/live_model.h"

namespace imgfsck {

enum class QueryMode { kTable, kCsv, kJson, kJsonl };
std::optional<QueryMode> ParseQueryMode(std::string_view text);  // "table" …

// While it lives, SQL on `db` can read and nothing else.
class ReadOnlyScope {
 public:
  explicit ReadOnlyScope(sqlite3* db);
  ~ReadOnlyScope();
  ReadOnlyScope(const ReadOnlyScope&) = delete;
  ReadOnlyScope& operator=(const ReadOnlyScope&) = delete;

 private:
  sqlite3* db_;
};

// All statements of `sql`, one after the other. Values reach a terminal only made harmless.
Status RunQuery(LiveModel& model, std::string_view sql, QueryMode mode, TextWriter& out);
// The same on any connection, a database file's for instance.
Status RunQuery(sqlite3* db, std::string_view sql, QueryMode mode, TextWriter& out);

}  // namespace imgfsck
