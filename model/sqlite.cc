// SPDX-License-Identifier: Apache-2.0
#include "model/sqlite.h"

#include <cerrno>

#include "base/interrupt.h"

namespace imgfsck {
namespace {

constexpr int kStepsBetweenChecks = 20000;

ErrorCode CodeOf(sqlite3* db, int code) {
  switch (code & 0xFF) {
    case SQLITE_INTERRUPT:
      return ErrorCode::kInterrupted;
    case SQLITE_NOMEM:
      return ErrorCode::kOutOfMemory;
    case SQLITE_FULL:
      return ErrorCode::kNoSpace;
    case SQLITE_IOERR:
      return db != nullptr && sqlite3_system_errno(db) == ENOSPC ? ErrorCode::kNoSpace
                                                                 : ErrorCode::kIo;
    case SQLITE_CANTOPEN:
      return ErrorCode::kIo;
    case SQLITE_PERM:
    case SQLITE_READONLY:
    case SQLITE_AUTH:
      return ErrorCode::kPermission;
    default:
      return ErrorCode::kInvalid;
  }
}

}  // namespace

Error SqliteError(sqlite3* db, int code, const std::string& what) {
  const char* message = db != nullptr ? sqlite3_errmsg(db) : sqlite3_errstr(code);
  return Error{CodeOf(db, code), what + ": " + message, {}};
}

Result<SqliteHandle> OpenSqlite(const std::string& path, int flags) {
  sqlite3* raw = nullptr;
  const int code = sqlite3_open_v2(path.c_str(), &raw, flags | SQLITE_OPEN_NOMUTEX, nullptr);
  SqliteHandle db(raw);
  if (code != SQLITE_OK) return SqliteError(raw, code, "open " + path);
  sqlite3_extended_result_codes(raw, 1);
  sqlite3_progress_handler(
      raw, kStepsBetweenChecks, [](void*) { return StopRequested() ? 1 : 0; }, nullptr);
  return db;
}

Status Exec(sqlite3* db, const std::string& sql) {
  const int code = sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) return SqliteError(db, code, "SQL");
  return Ok();
}

Result<Statement> Statement::Prepare(sqlite3* db, std::string_view sql, std::string_view* tail) {
  if (sql.size() > static_cast<size_t>(sqlite3_limit(db, SQLITE_LIMIT_SQL_LENGTH, -1))) {
    return Error{ErrorCode::kTooLarge, "the SQL text is too long", {}};
  }
  // SQLite takes it for the end of the text, and would find the same end again and again.
  if (sql.find('\0') != std::string_view::npos) {
    return Error{ErrorCode::kInvalid, "the SQL text holds a zero byte", {}};
  }
  sqlite3_stmt* raw = nullptr;
  const char* rest = nullptr;
  const int code = sqlite3_prepare_v2(db, sql.data(), static_cast<int>(sql.size()), &raw, &rest);
  Statement statement;
  statement.handle_.reset(raw);
  if (code != SQLITE_OK) return SqliteError(db, code, "SQL");
  if (tail != nullptr) *tail = sql.substr(static_cast<size_t>(rest - sql.data()));
  return statement;
}

Result<bool> Statement::Step() {
  const int code = sqlite3_step(handle_.get());
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  return SqliteError(sqlite3_db_handle(handle_.get()), code, "SQL");
}

std::string_view Statement::Text(int column) const {
  // A text's bytes without the copy that its terminating NUL can cost.
  const void* bytes = sqlite3_column_blob(handle_.get(), column);
  const auto size = static_cast<size_t>(sqlite3_column_bytes(handle_.get(), column));
  return {bytes == nullptr ? "" : static_cast<const char*>(bytes), bytes == nullptr ? 0 : size};
}

std::string_view Statement::NameOf(int column) const {
  const char* name = sqlite3_column_name(handle_.get(), column);
  return name == nullptr ? std::string_view() : std::string_view(name);
}

}  // namespace imgfsck
