// SPDX-License-Identifier: Apache-2.0
// The SQL schema: schema.sql, built into the program, and taken apart for the virtual tables and
// the documentation.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace imgfsck {

// The text of schema.sql, and of example_queries.sql.
extern const char kSchemaSql[];
extern const char kExampleQueriesSql[];

struct SchemaColumn {
  std::string name, type, comment;
  std::vector<std::string> vocabulary;  // all values there are; empty: any
};

struct SchemaTable {
  std::string name;
  bool is_view = false;
  std::string comment;
  std::vector<SchemaColumn> columns;  // of tables only
  std::string sql;                    // the CREATE statement, without its semicolon
  // The statement that creates it in the attached database `schema`.
  std::string SqlIn(std::string_view schema) const;
};

const std::vector<SchemaTable>& Schema();             // in the order of schema.sql
const SchemaTable* FindTable(std::string_view name);  // null when there is none
int SchemaVersion();                                  // PRAGMA user_version

struct ExampleQuery {
  std::string title, sql;
};
const std::vector<ExampleQuery>& ExampleQueries();

// The schema and the example queries as a page for people. docs/model.md is this text, checked in;
// a test keeps the two equal.
std::string ModelMarkdown();

}  // namespace imgfsck
