// SPDX-License-Identifier: Apache-2.0
// Rows into tables besides the model's.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "base/text.h"
#include "model/sqlite.h"

namespace imgfsck {

// A value of a row; numbers that SQLite's integers do not hold are NULL.
using Value = std::variant<std::monostate, int64_t, double, std::string>;

inline Value Number(uint64_t value) {
  if (value > INT64_MAX) return {};
  return static_cast<int64_t>(value);
}
inline Value TextOrNull(std::string_view text) {
  if (text.empty()) return {};
  return ValidUtf8(text);
}

// Inserts rows into one table.
class Inserter {
 public:
  static Result<Inserter> Into(sqlite3* db, const std::string& table, size_t columns) {
    std::string sql = "INSERT INTO main." + table + " VALUES (";
    for (size_t i = 0; i < columns; ++i) sql += i == 0 ? "?" : ", ?";
    Inserter inserter;
    IMG_ASSIGN_OR_RETURN(inserter.statement_, Statement::Prepare(db, sql + ")"));
    return inserter;
  }

  Status Row(const std::vector<Value>& values) {
    sqlite3_stmt* statement = statement_.get();
    for (size_t i = 0; i < values.size(); ++i) {
      const int column = static_cast<int>(i) + 1;
      if (const auto* number = std::get_if<int64_t>(&values[i])) {
        sqlite3_bind_int64(statement, column, *number);
      } else if (const auto* real = std::get_if<double>(&values[i])) {
        sqlite3_bind_double(statement, column, *real);
      } else if (const auto* text = std::get_if<std::string>(&values[i])) {
        sqlite3_bind_text64(statement, column, text->data(), text->size(), SQLITE_TRANSIENT,
                            SQLITE_UTF8);
      } else {
        sqlite3_bind_null(statement, column);
      }
    }
    IMG_ASSIGN_OR_RETURN([[maybe_unused]] const bool row, statement_.Step());
    statement_.Reset();
    return Ok();
  }

 private:
  Statement statement_;
};

}  // namespace imgfsck
