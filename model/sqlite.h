// SPDX-License-Identifier: Apache-2.0
// SQLite's handles with owners and our error type. Nothing more: statements are SQL.
#pragma once

#include <sqlite3.h>

#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

namespace imgfsck {

// The error that `db` has to report for `what`; `code` is the result code of the failed call.
Error SqliteError(sqlite3* db, int code, const std::string& what);

struct SqliteCloser {
  void operator()(sqlite3* db) const { sqlite3_close_v2(db); }
};
using SqliteHandle = std::unique_ptr<sqlite3, SqliteCloser>;

// For one thread at a time. SIGINT and the like stop whatever runs on it (base/interrupt.h).
Result<SqliteHandle> OpenSqlite(const std::string& path, int flags);
Status Exec(sqlite3* db, const std::string& sql);

class Statement {
 public:
  // The first statement of `sql`; the rest is left in *tail where that is given. An sql without a
  // statement (comments, spaces) gives an empty one.
  static Result<Statement> Prepare(sqlite3* db, std::string_view sql,
                                   std::string_view* tail = nullptr);

  bool empty() const { return handle_ == nullptr; }
  sqlite3_stmt* get() const { return handle_.get(); }
  Result<bool> Step();  // true: there is a row
  void Reset() { sqlite3_reset(handle_.get()); }

  int columns() const { return sqlite3_column_count(handle_.get()); }
  int TypeOf(int column) const { return sqlite3_column_type(handle_.get(), column); }
  int64_t Integer(int column) const { return sqlite3_column_int64(handle_.get(), column); }
  double Real(int column) const { return sqlite3_column_double(handle_.get(), column); }
  std::string_view Text(int column) const;  // of a text or blob; until the next Step()
  std::string_view NameOf(int column) const;

 private:
  struct Finalizer {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  };
  std::unique_ptr<sqlite3_stmt, Finalizer> handle_;
};

}  // namespace imgfsck
