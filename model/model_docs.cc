// SPDX-License-Identifier: Apache-2.0
#include "model/schema.h"

namespace imgfsck {
namespace {

void AppendColumn(const SchemaColumn& column, std::string* page) {
  std::string meaning = column.comment;
  if (!column.vocabulary.empty()) {
    if (!meaning.empty()) meaning += "; ";
    meaning += "one of";
    for (const std::string& word : column.vocabulary) meaning += " `" + word + "`";
  }
  page->append("| `").append(column.name).append("` | ").append(column.type);
  page->append(" | ").append(meaning).append(" |\n");
}

void AppendTable(const SchemaTable& table, std::string* page) {
  page->append("\n### ").append(table.name).append("\n\n").append(table.comment).append("\n\n");
  if (table.is_view) {
    page->append("```sql\n").append(table.sql).append(";\n```\n");
    return;
  }
  page->append("| column | type | what |\n| --- | --- | --- |\n");
  for (const SchemaColumn& column : table.columns) AppendColumn(column, page);
}

}  // namespace

std::string ModelMarkdown() {
  std::string page = R"(# The SQL model

<!-- Generated from model/schema.sql and model/example_queries.sql; the unit test of the schema says
how to renew it. -->

An image as tables that SQL can ask, the same for every format:

    imgdump --query "SELECT kind, sum(length) FROM region GROUP BY kind" disk.qcow2
    imgdump --db disk.db disk.qcow2
    imgdump --sql disk.qcow2 | sqlite3 disk.db

`--query` asks the image itself and copies nothing: `mapping`, `region`, `refcount`, `bitmap_range`
and `finding` stream. A `layer` and a range of `guest_offset` or `host_offset` are looked up where
the format can; `refcount` and `finding` run the check when they are first touched.

Offsets, lengths and sizes are bytes. An INTEGER that does not apply, or that is 2^63 or more in the
image, is NULL; where the bytes matter, a `raw` column has them in hex. Text is valid UTF-8: what is
not in the image became U+FFFD. `image_id` is 1 when one image is dumped.
)";
  page += "`PRAGMA user_version` is " + std::to_string(SchemaVersion()) +
          "; columns may be added later, never renamed.\n\n## Tables\n";
  for (const SchemaTable& table : Schema()) AppendTable(table, &page);
  page += R"(
### Live only

In `imgdump --query` the streamed tables take a few columns more, which `SELECT *` does not show:

| column | what |
| --- | --- |
| `mapping.guest_at = X` | the piece of an extent that holds guest byte X, found without a walk |
| `mapping.host_at = X`, `region.host_at = X`, `refcount.host_at = X` | rows that hold byte X of the file |
| `mapping.per_cluster = 1` | a row a cluster instead of merged extents |

A join of two streamed tables is faster when one of them is first put into a
`WITH … AS MATERIALIZED` part: SQLite then makes an index for it.

## Useful queries
)";
  for (const ExampleQuery& example : ExampleQueries()) {
    page.append("\n").append(example.title).append("\n\n```sql\n").append(example.sql);
    page.append("```\n");
  }
  return page;
}

}  // namespace imgfsck
