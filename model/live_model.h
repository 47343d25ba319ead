// SPDX-License-Identifier: Apache-2.0
// The SQL model over a live image: SQLite tables with the schema's names. Small tables are filled
// when the model is opened; mapping, region, refcount, bitmap_range and finding are virtual and
// stream. refcount and finding need the check, which runs when one of them is first touched.
//
// Besides the schema's columns the virtual tables take hidden ones, live only:
//   mapping.guest_at = X     the piece of an extent that holds guest byte X, found at once
//   mapping.host_at, region.host_at, refcount.host_at = X    rows that hold byte X of the file
//   mapping.per_cluster = 1  a row a cluster instead of merged extents
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "model/finding.h"
#include "model/rows.h"
#include "model/sqlite.h"

namespace imgfsck {

// Where one image's rows come from. What it points to outlives the model.
struct ModelSource {
  const ImageRows* rows = nullptr;
  // Runs the check when called; asked once at most. None: no findings.
  std::function<Result<const Findings*>()> findings;
  // None, or a null cursor: the format has no counts.
  std::function<Result<std::unique_ptr<RowCursor<RefcountRow>>>(const RowQuery&)> refcounts;
  std::string sha256;  // of the image file; empty: not computed
  int64_t image_id = 1;
};

class LiveState;

// The schema's tables of one image, in a database of an SQLite connection. Destroyed before the
// connection is closed.
class LiveTables {
 public:
  // Creates them in the attached database `schema` of `db`.
  static Result<std::unique_ptr<LiveTables>> Create(sqlite3* db, const std::string& schema,
                                                    const ModelSource& source);
  ~LiveTables();
  LiveTables(const LiveTables&) = delete;
  LiveTables& operator=(const LiveTables&) = delete;

  // SQLite only carries the text of an error that a table met; this is the error itself, once.
  Error Explain(Error from_sqlite);

 private:
  LiveTables(sqlite3* db, const ModelSource& source);
  Status Install(const std::string& schema);
  sqlite3* db_;
  std::unique_ptr<LiveState> state_;
};

// A connection of its own, for queries: the live tables are its main database.
class LiveModel {
 public:
  static Result<std::unique_ptr<LiveModel>> Open(const ModelSource& source);
  ~LiveModel();
  sqlite3* db() const { return db_.get(); }
  Error Explain(Error from_sqlite) { return tables_->Explain(std::move(from_sqlite)); }

 private:
  SqliteHandle db_;
  std::unique_ptr<LiveTables> tables_;
};

}  // namespace imgfsck
