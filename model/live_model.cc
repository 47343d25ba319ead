// SPDX-License-Identifier: Apache-2.0
#include "model/live_model.h"

#include "model/live_module.h"
#include "model/live_state.h"
#include "model/schema.h"

namespace imgfsck {
namespace {

// Binds a row's columns one after the other, in the schema's order.
class Inserter {
 public:
  static Result<Inserter> Into(sqlite3* db, const std::string& schema, std::string_view table) {
    const SchemaTable* columns = FindTable(table);
    IMG_CHECK(columns != nullptr);
    std::string sql = "INSERT INTO " + schema + "." + columns->name + " VALUES (?";
    for (size_t i = 1; i < columns->columns.size(); ++i) sql += ",?";
    Inserter inserter;
    IMG_ASSIGN_OR_RETURN(inserter.statement_, Statement::Prepare(db, sql + ")"));
    return inserter;
  }

  Inserter& Signed(int64_t value) {
    sqlite3_bind_int64(statement_.get(), ++bound_, value);
    return *this;
  }
  Inserter& Integer(uint64_t value) {
    return value <= INT64_MAX ? Signed(static_cast<int64_t>(value)) : Null();
  }
  Inserter& Integer(const std::optional<uint64_t>& value) {
    return value ? Integer(*value) : Null();
  }
  Inserter& Text(std::string_view text) {
    const std::string valid = ValidUtf8(text);
    sqlite3_bind_text64(statement_.get(), ++bound_, valid.data(), valid.size(), SQLITE_TRANSIENT,
                        SQLITE_UTF8);
    return *this;
  }
  Inserter& Null() {
    sqlite3_bind_null(statement_.get(), ++bound_);
    return *this;
  }
  Status Row() {
    IMG_CHECK(bound_ == sqlite3_bind_parameter_count(statement_.get()));
    bound_ = 0;
    IMG_RETURN_IF_ERROR(statement_.Step());
    statement_.Reset();
    return Ok();
  }

 private:
  Statement statement_;
  int bound_ = 0;
};

// The tables that do not grow with the disk, copied.
class SmallTables {
 public:
  SmallTables(sqlite3* db, const std::string& schema, const ModelSource& source)
      : db_(db), schema_(schema), source_(source), rows_(*source.rows) {}

  Status Fill() {
    IMG_RETURN_IF_ERROR(FillImage());
    IMG_RETURN_IF_ERROR(FillFields());
    IMG_RETURN_IF_ERROR(FillSnapshots());
    IMG_RETURN_IF_ERROR(FillBitmaps());
    return FillLinks();
  }

 private:
  Status FillImage() {
    IMG_ASSIGN_OR_RETURN(auto insert, Inserter::Into(db_, schema_, "image"));
    const ImageRow row = rows_.Image();
    insert.Signed(source_.image_id).Text(row.path).Text(row.format).Text(row.version);
    insert.Integer(row.virtual_size).Integer(row.file_size).Integer(row.cluster_size);
    insert.Integer(row.allocated);
    source_.sha256.empty() ? insert.Null() : insert.Text(source_.sha256);
    return insert.Row();
  }

  Status FillFields() {
    IMG_ASSIGN_OR_RETURN(auto insert, Inserter::Into(db_, schema_, "field"));
    for (const FieldRow& row : rows_.Fields()) {
      insert.Signed(source_.image_id).Text(row.structure).Integer(row.host_offset);
      insert.Integer(row.length).Text(row.name).Integer(row.value).Text(row.raw);
      IMG_RETURN_IF_ERROR(insert.Text(row.meaning).Row());
    }
    return Ok();
  }

  Status FillSnapshots() {
    IMG_ASSIGN_OR_RETURN(auto insert, Inserter::Into(db_, schema_, "snapshot"));
    for (const SnapshotRow& row : rows_.Snapshots()) {
      insert.Signed(source_.image_id).Text(row.id).Text(row.name).Integer(row.host_offset);
      insert.Integer(row.l1_offset).Integer(row.l1_entries).Integer(row.virtual_size);
      insert.Integer(row.vm_state_size).Signed(row.date_seconds).Integer(row.date_nanoseconds);
      IMG_RETURN_IF_ERROR(insert.Integer(row.vm_clock_nanoseconds).Row());
    }
    return Ok();
  }

  Status FillBitmaps() {
    IMG_ASSIGN_OR_RETURN(auto insert, Inserter::Into(db_, schema_, "bitmap"));
    for (const BitmapRow& row : rows_.Bitmaps()) {
      insert.Signed(source_.image_id).Text(row.name).Integer(row.host_offset);
      insert.Integer(row.granularity).Integer(row.table_offset).Integer(row.table_entries);
      IMG_RETURN_IF_ERROR(
          insert.Signed(row.in_use).Signed(row.enabled).Signed(row.consistent).Row());
    }
    return Ok();
  }

  Status FillLinks() {
    IMG_ASSIGN_OR_RETURN(auto insert, Inserter::Into(db_, schema_, "link"));
    for (const LinkRow& row : rows_.Links()) {
      insert.Signed(source_.image_id).Text(row.kind).Text(row.name).Text(row.format);
      IMG_RETURN_IF_ERROR(insert.Integer(row.host_offset).Integer(row.length).Row());
    }
    return Ok();
  }

  sqlite3* db_;
  std::string schema_;
  const ModelSource& source_;
  const ImageRows& rows_;
};

std::string ModuleName(const ModelSource& source) {
  return "imgfsck_image_" + std::to_string(source.image_id);
}

}  // namespace

LiveTables::LiveTables(sqlite3* db, const ModelSource& source)
    : db_(db), state_(std::make_unique<LiveState>(source)) {}

LiveTables::~LiveTables() { UnregisterLiveModule(db_, ModuleName(state_->source())); }

Result<std::unique_ptr<LiveTables>> LiveTables::Create(sqlite3* db, const std::string& schema,
                                                       const ModelSource& source) {
  std::unique_ptr<LiveTables> tables(new LiveTables(db, source));
  IMG_RETURN_IF_ERROR(tables->Install(schema));
  return tables;
}

Status LiveTables::Install(const std::string& schema) {
  const ModelSource& source = state_->source();
  IMG_RETURN_IF_ERROR(RegisterLiveModule(db_, ModuleName(source), state_.get()));
  for (const SchemaTable& table : Schema()) {
    IMG_RETURN_IF_ERROR(Exec(db_, IsLiveTable(table.name)
                                      ? "CREATE VIRTUAL TABLE " + schema + "." + table.name +
                                            " USING " + ModuleName(source) + "(" + table.name + ")"
                                      : table.SqlIn(schema)));
  }
  IMG_RETURN_IF_ERROR(
      Exec(db_, "PRAGMA " + schema + ".user_version = " + std::to_string(SchemaVersion())));
  IMG_RETURN_IF_ERROR(Exec(db_, "BEGIN"));
  IMG_RETURN_IF_ERROR(SmallTables(db_, schema, source).Fill());
  return Exec(db_, "COMMIT");
}

Error LiveTables::Explain(Error from_sqlite) {
  return state_->TakeError().value_or(std::move(from_sqlite));
}

Result<std::unique_ptr<LiveModel>> LiveModel::Open(const ModelSource& source) {
  auto model = std::make_unique<LiveModel>();
  IMG_ASSIGN_OR_RETURN(model->db_, OpenSqlite(":memory:", SQLITE_OPEN_READWRITE));
  IMG_ASSIGN_OR_RETURN(model->tables_, LiveTables::Create(model->db(), "main", source));
  return model;
}

LiveModel::~LiveModel() = default;

}  // namespace imgfsck
