// SPDX-License-Identifier: Apache-2.0
#include "model/sql_script.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/bytes.h"
#include "model/schema.h"

namespace imgfsck {
namespace {

constexpr uint64_t kRowsAStatement = 200;

// Plain text is quoted. Text with control characters is written as its bytes: no NUL ends the
// script early, no newline meets sqlite3's line editor, no escape meets a terminal.
void PutText(std::string_view text, TextWriter& out) {
  const bool plain = std::none_of(
      text.begin(), text.end(), [](char c) { return static_cast<uint8_t>(c) < ' ' || c == 0x7F; });
  if (!plain) {
    out.Put("CAST(x'");
    out.Put(HexEncode(AsBytes(text)));
    return out.Put("' AS TEXT)");
  }
  out.Put('\'');
  for (size_t quote; (quote = text.find('\'')) != std::string_view::npos;) {
    out.Put(text.substr(0, quote + 1));
    out.Put('\'');
    text.remove_prefix(quote + 1);
  }
  out.Put(text);
  out.Put('\'');
}

void PutValue(const Statement& row, int column, TextWriter& out) {
  switch (row.TypeOf(column)) {
    case SQLITE_INTEGER:
      return out.PutSigned(row.Integer(column));
    case SQLITE_FLOAT: {
      const double value = row.Real(column);
      return out.Put(std::isfinite(value) ? fmt::format("{}", value) : std::string("NULL"));
    }
    case SQLITE_NULL:
      return out.Put("NULL");
    default:
      return PutText(row.Text(column), out);
  }
}

Status PutTable(sqlite3* db, const std::string& table, TextWriter& out) {
  IMG_ASSIGN_OR_RETURN(Statement rows, Statement::Prepare(db, "SELECT * FROM " + table));
  const int columns = rows.columns();
  uint64_t count = 0;
  while (out.ok()) {
    IMG_ASSIGN_OR_RETURN(bool more, rows.Step());
    if (!more) break;
    if (count % kRowsAStatement == 0) {
      out.Put(count == 0 ? "INSERT INTO " : ";\nINSERT INTO ");
      out.Put(table);
      out.Put(" VALUES\n(");
    } else {
      out.Put(",\n(");
    }
    ++count;
    for (int i = 0; i < columns; ++i) {
      if (i > 0) out.Put(',');
      PutValue(rows, i, out);
    }
    out.Put(')');
  }
  if (count > 0) out.Put(";\n");
  return Ok();
}

Status PutImage(const ModelSource& source, TextWriter& out) {
  IMG_ASSIGN_OR_RETURN(auto model, LiveModel::Open(source));
  for (const SchemaTable& table : Schema()) {
    if (table.is_view) continue;
    Status put = PutTable(model->db(), table.name, out);
    if (!put) return model->Explain(std::move(put).error());
  }
  return Ok();
}

}  // namespace

Status WriteSqlScript(std::span<const ModelSource> sources, TextWriter& out) {
  out.Put("BEGIN;\n");
  out.Put(kSchemaSql);
  for (const ModelSource& source : sources) IMG_RETURN_IF_ERROR(PutImage(source, out));
  out.Put("COMMIT;\n");
  return out.ok() ? Ok() : out.Finish();
}

}  // namespace imgfsck
