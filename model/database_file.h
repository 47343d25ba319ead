// SPDX-License-Identifier: Apache-2.0
// The model of one or many images kept as an SQLite file. The file appears under its name when it
// is complete and durable, or not at all; an existing file is never touched.
#pragma once

#include <memory>
#include <string>

#include "model/live_model.h"

namespace imgfsck {

class DatabaseFile {
 public:
  static Result<std::unique_ptr<DatabaseFile>> Create(const std::string& path);
  ~DatabaseFile();  // without Finish(): leaves nothing behind
  DatabaseFile(const DatabaseFile&) = delete;
  DatabaseFile& operator=(const DatabaseFile&) = delete;

  // Copies all tables of one image; each image with an image_id of its own.
  Status Add(const ModelSource& source);
  // Copies all tables of another such file, which somebody else may have tampered with.
  Status AddDatabase(const std::string& path);
  // For tables besides the model's.
  sqlite3* db() const { return db_.get(); }
  Status Finish();

 private:
  explicit DatabaseFile(std::string path) : path_(std::move(path)) {}
  Status Open();

  std::string path_, temporary_;
  SqliteHandle db_;
};

// All of it for one image.
Status WriteDatabaseFile(const std::string& path, const ModelSource& source);

}  // namespace imgfsck
