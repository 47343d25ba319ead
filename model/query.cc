// SPDX-License-Identifier: Apache-2.0
#include "model/query.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/bytes.h"
#include "base/json_writer.h"
#include "base/text.h"

namespace imgfsck {
namespace {

constexpr size_t kRowsMeasured = 1000;  // that decide on a table's column widths

int AuthorizePragma(const char* name, const char* argument) {
  static constexpr std::array<std::string_view, 5> kAllowed = {
      "table_info", "table_xinfo", "table_list", "function_list", "compile_options"};
  if (std::find(kAllowed.begin(), kAllowed.end(), name) != kAllowed.end()) return SQLITE_OK;
  const bool reads = argument == nullptr && std::string_view(name) == "user_version";
  return reads ? SQLITE_OK : SQLITE_DENY;
}

int Authorize(void*, int action, const char* first, const char* second, const char*, const char*) {
  switch (action) {
    case SQLITE_SELECT:
    case SQLITE_READ:
    case SQLITE_RECURSIVE:
      return SQLITE_OK;
    case SQLITE_FUNCTION:
      return second != nullptr && std::string_view(second) == "load_extension" ? SQLITE_DENY
                                                                               : SQLITE_OK;
    case SQLITE_UPDATE:
      // What SQLite does to connect a virtual table; a user's UPDATE of it is refused elsewhere.
      return first != nullptr && std::string_view(first) == "sqlite_master" ? SQLITE_OK
                                                                            : SQLITE_DENY;
    case SQLITE_PRAGMA:
      return first == nullptr ? SQLITE_DENY : AuthorizePragma(first, second);
    default:
      return SQLITE_DENY;
  }
}

// The value as text that is safe to show.
std::string Shown(const Statement& row, int column) {
  switch (row.TypeOf(column)) {
    case SQLITE_INTEGER:
      return std::to_string(row.Integer(column));
    case SQLITE_FLOAT:
      return fmt::format("{}", row.Real(column));
    case SQLITE_BLOB:
      return HexEncode(AsBytes(row.Text(column)));
    case SQLITE_NULL:
      return "";
    default:
      return Printable(row.Text(column));
  }
}

class RowPrinter {
 public:
  explicit RowPrinter(TextWriter& out) : out_(out) {}
  virtual ~RowPrinter() = default;
  virtual void Begin(const Statement&) {}
  virtual void Row(const Statement& row) = 0;
  virtual void End() {}

 protected:
  TextWriter& out_;
};

// Columns under each other. The first rows are held back until their widths are known.
class TablePrinter : public RowPrinter {
 public:
  using RowPrinter::RowPrinter;

  void Begin(const Statement& row) override {
    Cells names;
    for (int i = 0; i < row.columns(); ++i) names.push_back({Printable(row.NameOf(i)), false});
    widths_.assign(names.size(), 1);
    Hold(std::move(names));
  }
  void Row(const Statement& row) override {
    Cells cells;
    for (int i = 0; i < row.columns(); ++i) {
      const int type = row.TypeOf(i);
      const bool null = type == SQLITE_NULL;
      cells.push_back(
          {null ? "NULL" : Shown(row, i), type == SQLITE_INTEGER || type == SQLITE_FLOAT});
    }
    if (released_) return Put(cells);
    Hold(std::move(cells));
    if (held_.size() > kRowsMeasured) Release();
  }
  void End() override {
    if (!released_) Release();
  }

 private:
  struct Cell {
    std::string text;
    bool right;
  };
  using Cells = std::vector<Cell>;

  static size_t Width(const std::string& text) {  // in code points
    return static_cast<size_t>(std::count_if(
        text.begin(), text.end(), [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; }));
  }
  void Hold(Cells cells) {
    for (size_t i = 0; i < cells.size(); ++i) {
      widths_[i] = std::max(widths_[i], Width(cells[i].text));
    }
    held_.push_back(std::move(cells));
  }
  void Release() {
    released_ = true;
    for (size_t i = 0; i < held_.size(); ++i) {
      Put(held_[i]);
      if (i == 0) PutRule();
    }
    held_.clear();
  }
  void PutRule() {
    for (size_t i = 0; i < widths_.size(); ++i) {
      if (i > 0) out_.Put("  ");
      out_.Put(std::string(widths_[i], '-'));
    }
    out_.Put('\n');
  }
  void Put(const Cells& cells) {
    for (size_t i = 0; i < cells.size(); ++i) {
      const size_t width = Width(cells[i].text);
      const std::string padding(widths_[i] > width ? widths_[i] - width : 0, ' ');
      if (i > 0) out_.Put("  ");
      if (cells[i].right) out_.Put(padding);
      out_.Put(cells[i].text);
      if (!cells[i].right && i + 1 < cells.size()) out_.Put(padding);
    }
    out_.Put('\n');
  }

  std::vector<size_t> widths_;
  std::vector<Cells> held_;
  bool released_ = false;
};

class CsvPrinter : public RowPrinter {
 public:
  using RowPrinter::RowPrinter;

  void Begin(const Statement& row) override {
    for (int i = 0; i < row.columns(); ++i) Cell(i, Printable(row.NameOf(i)));
    out_.Put('\n');
  }
  void Row(const Statement& row) override {
    for (int i = 0; i < row.columns(); ++i) Cell(i, Shown(row, i));
    out_.Put('\n');
  }

 private:
  void Cell(int column, const std::string& text) {
    if (column > 0) out_.Put(',');
    if (text.find_first_of(",\"") == std::string::npos) return out_.Put(text);
    out_.Put('"');
    for (char c : text) {
      if (c == '"') out_.Put('"');
      out_.Put(c);
    }
    out_.Put('"');
  }
};

// An array of objects over several lines, or an object a line.
class JsonPrinter : public RowPrinter {
 public:
  JsonPrinter(TextWriter& out, bool lines) : RowPrinter(out), lines_(lines) {}

  void Begin(const Statement& row) override {
    names_.clear();
    for (int i = 0; i < row.columns(); ++i) names_.emplace_back(row.NameOf(i));
    rows_ = 0;
    if (!lines_) out_.Put('[');
  }
  void Row(const Statement& row) override {
    if (!lines_ && rows_ > 0) out_.Put(",\n");
    ++rows_;
    JsonWriter json(out_);
    json.BeginObject();
    for (int i = 0; i < row.columns(); ++i) {
      json.Key(names_[static_cast<size_t>(i)]);
      Value(row, i, json);
    }
    json.EndObject();
    if (lines_) out_.Put('\n');
  }
  void End() override {
    if (!lines_) out_.Put("]\n");
  }

 private:
  static void Value(const Statement& row, int column, JsonWriter& json) {
    switch (row.TypeOf(column)) {
      case SQLITE_INTEGER:
        return json.Value(row.Integer(column));
      case SQLITE_FLOAT:
        return json.Value(row.Real(column));
      case SQLITE_NULL:
        return json.Null();
      case SQLITE_BLOB:
        return json.Value(std::string_view(HexEncode(AsBytes(row.Text(column)))));
      default:
        return json.Value(row.Text(column));
    }
  }
  bool lines_;
  uint64_t rows_ = 0;
  std::vector<std::string> names_;
};

std::unique_ptr<RowPrinter> MakePrinter(QueryMode mode, TextWriter& out) {
  switch (mode) {
    case QueryMode::kCsv:
      return std::make_unique<CsvPrinter>(out);
    case QueryMode::kJson:
      return std::make_unique<JsonPrinter>(out, false);
    case QueryMode::kJsonl:
      return std::make_unique<JsonPrinter>(out, true);
    case QueryMode::kTable:
      break;
  }
  return std::make_unique<TablePrinter>(out);
}

Status Print(Statement& statement, QueryMode mode, TextWriter& out) {
  auto printer = MakePrinter(mode, out);
  printer->Begin(statement);
  while (out.ok()) {
    IMG_ASSIGN_OR_RETURN(bool row, statement.Step());
    if (!row) break;
    printer->Row(statement);
  }
  printer->End();
  return out.ok() ? Ok() : out.Finish();
}

}  // namespace

ReadOnlyScope::ReadOnlyScope(sqlite3* db) : db_(db) {
  sqlite3_set_authorizer(db, Authorize, nullptr);
}
ReadOnlyScope::~ReadOnlyScope() { sqlite3_set_authorizer(db_, nullptr, nullptr); }

std::optional<QueryMode> ParseQueryMode(std::string_view text) {
  if (text == "table") return QueryMode::kTable;
  if (text == "csv") return QueryMode::kCsv;
  if (text == "json") return QueryMode::kJson;
  if (text == "jsonl") return QueryMode::kJsonl;
  return std::nullopt;
}

Status RunQuery(sqlite3* db, std::string_view sql, QueryMode mode, TextWriter& out) {
  ReadOnlyScope scope(db);
  while (!sql.empty()) {
    IMG_ASSIGN_OR_RETURN(Statement statement, Statement::Prepare(db, sql, &sql));
    if (!statement.empty()) IMG_RETURN_IF_ERROR(Print(statement, mode, out));
  }
  return Ok();
}

Status RunQuery(LiveModel& model, std::string_view sql, QueryMode mode, TextWriter& out) {
  Status status = RunQuery(model.db(), sql, mode, out);
  if (!status) return model.Explain(std::move(status).error());
  return status;
}

}  // namespace imgfsck
