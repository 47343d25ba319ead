// SPDX-License-Identifier: Apache-2.0
#include "model/live_module.h"

#include <vector>

#include "model/live_rows.h"
#include "model/schema.h"

namespace imgfsck {
namespace {

// One scan of one table. Positioned on a row, or at the end.
class ScanCursor : public sqlite3_vtab_cursor {
 public:
  ScanCursor() : sqlite3_vtab_cursor{} {}
  virtual ~ScanCursor() = default;
  virtual Status Start(const Scan& scan) = 0;
  virtual Status Next() = 0;
  virtual bool AtEnd() const = 0;
  virtual void Column(sqlite3_context* context, int column) const = 0;
  int64_t row_number() const { return row_number_; }

 protected:
  int64_t row_number_ = 0;
};

template <class Row>
using OpenFn = Result<std::unique_ptr<RowCursor<Row>>> (*)(LiveState&, const Scan&);

template <class Row>
class RowScanCursor : public ScanCursor {
 public:
  RowScanCursor(LiveState& state, OpenFn<Row> open) : state_(state), open_(open) {}

  Status Start(const Scan& scan) override {
    rows_.reset();
    batch_.clear();
    at_ = 0;
    row_number_ = 0;
    if (scan.nothing) return Ok();
    IMG_ASSIGN_OR_RETURN(rows_, open_(state_, scan));
    return Next();
  }
  Status Next() override {
    ++row_number_;
    if (++at_ < batch_.size()) return Ok();
    at_ = 0;
    batch_.clear();
    if (rows_ == nullptr) return Ok();
    IMG_RETURN_IF_ERROR(rows_->NextBatch(&batch_));
    if (batch_.empty()) rows_.reset();
    return Ok();
  }
  bool AtEnd() const override { return batch_.empty(); }
  void Column(sqlite3_context* context, int column) const override {
    PutColumn(context, state_, batch_[at_], column);
  }

 private:
  LiveState& state_;
  OpenFn<Row> open_;
  std::unique_ptr<RowCursor<Row>> rows_;
  std::vector<Row> batch_;
  size_t at_ = 0;
};

template <class Row, OpenFn<Row> open>
std::unique_ptr<ScanCursor> MakeCursor(LiveState& state) {
  return std::make_unique<RowScanCursor<Row>>(state, open);
}

struct TableKind {
  std::string_view name;
  std::vector<std::pair<std::string_view, ColumnRole>> roles;   // of schema columns, by name
  std::vector<std::pair<std::string_view, ColumnRole>> hidden;  // columns besides the schema's
  std::unique_ptr<ScanCursor> (*make_cursor)(LiveState&);
};

const std::vector<TableKind>& Kinds() {
  using enum ColumnRole;
  static const std::vector<TableKind> kinds = {
      {"mapping",
       {{"image_id", kImage}, {"layer", kLayer}, {"guest_offset", kGuest}, {"host_offset", kHost}},
       {{"guest_at", kGuestAt}, {"host_at", kHostAt}, {"per_cluster", kPerCluster}},
       MakeCursor<MappingRow, OpenMappings>},
      {"region",
       {{"image_id", kImage}, {"host_offset", kHost}},
       {{"host_at", kHostAt}},
       MakeCursor<RegionRow, OpenRegions>},
      {"refcount",
       {{"image_id", kImage}, {"host_offset", kHost}},
       {{"host_at", kHostAt}},
       MakeCursor<RefcountRow, OpenRefcounts>},
      {"bitmap_range", {}, {}, MakeCursor<BitmapRangeRow, OpenBitmapRanges>},
      {"finding", {}, {}, MakeCursor<FindingPointer, OpenFindings>},
  };
  return kinds;
}

const TableKind* FindKind(std::string_view name) {
  for (const TableKind& kind : Kinds()) {
    if (kind.name == name) return &kind;
  }
  return nullptr;
}

struct RowTable : sqlite3_vtab {
  LiveState* state = nullptr;
  const TableKind* kind = nullptr;
  ScanShape shape;
};

ScanShape ShapeOf(const TableKind& kind, const SchemaTable& schema, const LiveState& state) {
  ScanShape shape;
  for (const SchemaColumn& column : schema.columns) {
    ColumnRole role = ColumnRole::kNone;
    for (const auto& [name, named_role] : kind.roles) {
      if (name == column.name) role = named_role;
    }
    shape.roles.push_back(role);
  }
  for (const auto& [name, role] : kind.hidden) shape.roles.push_back(role);
  std::vector<std::string> layers = state.source().rows->Layers();
  for (std::string& layer : layers) layer = ValidUtf8(layer);  // as a WHERE names them
  shape.one_layer = layers.size() == 1;
  shape.guest_ordered = kind.name == "mapping";
  for (size_t i = 1; i < layers.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (layers[i] == layers[j]) shape.guest_ordered = false;  // then walked together
    }
  }
  return shape;
}

int Connect(sqlite3* db, void* state, int argc, const char* const* argv, sqlite3_vtab** out,
            char** error) {
  const TableKind* kind = argc > 3 ? FindKind(argv[3]) : nullptr;
  const SchemaTable* schema = kind != nullptr ? FindTable(kind->name) : nullptr;
  if (schema == nullptr) {
    *error = sqlite3_mprintf("no such live table");
    return SQLITE_ERROR;
  }
  std::string sql = "CREATE TABLE x(";
  for (const SchemaColumn& column : schema->columns) sql += column.name + " " + column.type + ", ";
  for (const auto& [name, role] : kind->hidden) sql.append(name).append(" INTEGER HIDDEN, ");
  sql.replace(sql.size() - 2, 2, ")");
  const int code = sqlite3_declare_vtab(db, sql.c_str());
  if (code != SQLITE_OK) return code;
  sqlite3_vtab_config(db, SQLITE_VTAB_INNOCUOUS);
  auto table = std::make_unique<RowTable>();
  static_cast<sqlite3_vtab&>(*table) = {};
  table->state = static_cast<LiveState*>(state);
  table->kind = kind;
  table->shape = ShapeOf(*kind, *schema, *table->state);
  *out = table.release();
  return SQLITE_OK;
}

int Disconnect(sqlite3_vtab* table) {
  delete static_cast<RowTable*>(table);
  return SQLITE_OK;
}

int BestIndex(sqlite3_vtab* table, sqlite3_index_info* info) {
  return PlanScan(static_cast<RowTable*>(table)->shape, info);
}

int Open(sqlite3_vtab* table, sqlite3_vtab_cursor** out) {
  auto* row_table = static_cast<RowTable*>(table);
  *out = row_table->kind->make_cursor(*row_table->state).release();
  return SQLITE_OK;
}

int Close(sqlite3_vtab_cursor* cursor) {
  delete static_cast<ScanCursor*>(cursor);
  return SQLITE_OK;
}

// SQLite takes over the error's text; the error itself waits in the state.
int Report(sqlite3_vtab_cursor* cursor, const Status& status) {
  if (status) return SQLITE_OK;
  auto* table = static_cast<RowTable*>(cursor->pVtab);
  table->state->SetError(status.error());
  sqlite3_free(table->zErrMsg);
  table->zErrMsg = sqlite3_mprintf("%s", status.error().message.c_str());
  return status.error().code == ErrorCode::kInterrupted ? SQLITE_INTERRUPT : SQLITE_ERROR;
}

int Filter(sqlite3_vtab_cursor* cursor, int, const char* plan, int count, sqlite3_value** values) {
  return Report(cursor, static_cast<ScanCursor*>(cursor)->Start(ReadScan(plan, count, values)));
}

int Next(sqlite3_vtab_cursor* cursor) {
  return Report(cursor, static_cast<ScanCursor*>(cursor)->Next());
}

int Eof(sqlite3_vtab_cursor* cursor) { return static_cast<ScanCursor*>(cursor)->AtEnd() ? 1 : 0; }

int Column(sqlite3_vtab_cursor* cursor, sqlite3_context* context, int column) {
  static_cast<ScanCursor*>(cursor)->Column(context, column);
  return SQLITE_OK;
}

int RowId(sqlite3_vtab_cursor* cursor, sqlite3_int64* row) {
  *row = static_cast<ScanCursor*>(cursor)->row_number();
  return SQLITE_OK;
}

const sqlite3_module kModule = [] {
  sqlite3_module module = {};
  module.xCreate = Connect;
  module.xConnect = Connect;
  module.xBestIndex = BestIndex;
  module.xDisconnect = Disconnect;
  module.xDestroy = Disconnect;
  module.xOpen = Open;
  module.xClose = Close;
  module.xFilter = Filter;
  module.xNext = Next;
  module.xEof = Eof;
  module.xColumn = Column;
  module.xRowid = RowId;
  return module;
}();

}  // namespace

Status RegisterLiveModule(sqlite3* db, const std::string& name, LiveState* state) {
  const int code = sqlite3_create_module_v2(db, name.c_str(), &kModule, state, nullptr);
  if (code != SQLITE_OK) return SqliteError(db, code, "register " + name);
  return Ok();
}

void UnregisterLiveModule(sqlite3* db, const std::string& name) {
  sqlite3_create_module_v2(db, name.c_str(), nullptr, nullptr, nullptr);
}

bool IsLiveTable(std::string_view name) { return FindKind(name) != nullptr; }

}  // namespace imgfsck
