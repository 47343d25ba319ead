// SPDX-License-Identifier: Apache-2.0
// The SQLite file under an undo record: opened so that a hostile file can do no more than be
// refused. No schema but ours, no triggers or views, bounded values and cache, no other file named
// by a journal. Only undo_record.cc includes this.
#pragma once

#include <sqlite3.h>

#include <memory>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"

namespace imgfsck {

class UndoDatabase {
 public:
  class Statement {
   public:
    Statement(sqlite3* db, const std::string& path, std::string_view sql);
    ~Statement() { sqlite3_finalize(statement_); }
    Statement(const Statement&) = delete;
    Statement& operator=(const Statement&) = delete;

    // Parameters from 1, in order; a failure shows at Step.
    void BindNumber(int index, uint64_t value);
    void BindText(int index, std::string_view text);
    void BindBlob(int index, Bytes bytes);  // must live until Step
    Result<bool> Step();                    // whether there is a row
    Status Reset();

    // Columns from 0 of the row; valid until the next Step. kInvalid on another type.
    Result<uint64_t> Number(int column) const;
    Result<std::string_view> Text(int column) const;
    Result<Bytes> Blob(int column) const;

   private:
    sqlite3* db_;
    const std::string& path_;
    sqlite3_stmt* statement_ = nullptr;
    int failure_ = SQLITE_OK;
  };

  // A new database in a file that must not exist, with our tables, inside a transaction.
  static Result<std::unique_ptr<UndoDatabase>> Create(const std::string& path);
  // kInvalid when the file is not ours.
  static Result<std::unique_ptr<UndoDatabase>> Open(const std::string& path);
  // Removes what Create left behind.
  static void Remove(const std::string& path);
  ~UndoDatabase();
  UndoDatabase(const UndoDatabase&) = delete;
  UndoDatabase& operator=(const UndoDatabase&) = delete;

  Status Execute(const char* sql);
  std::unique_ptr<Statement> Prepare(std::string_view sql) const;
  const std::string& path() const { return path_; }

 private:
  UndoDatabase(std::string path, sqlite3* db) : path_(std::move(path)), db_(db) {}
  static Result<std::unique_ptr<UndoDatabase>> OpenHardened(const std::string& path);
  Status CheckSchema() const;

  std::string path_;
  sqlite3* db_;
};

}  // namespace imgfsck
