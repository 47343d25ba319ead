// SPDX-License-Identifier: Apache-2.0
// Reads our own schema.sql line by line; it is no general SQL parser and need not be one.
#include "model/schema.h"

#include <charconv>
#include <optional>
#include <sstream>

#include "base/result.h"

namespace imgfsck {
namespace {

constexpr std::string_view kTable = "CREATE TABLE ", kView = "CREATE VIEW ";

std::string_view Trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == ',')) text.remove_suffix(1);
  return text;
}

void AppendWords(std::string& text, std::string_view more) {
  if (!text.empty() && !more.empty()) text += ' ';
  text += more;
}

std::vector<std::string> Words(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

// One statement's lines become a SchemaTable.
class StatementReader {
 public:
  explicit StatementReader(std::string_view first_line, std::string comment) {
    table_.is_view = first_line.starts_with(kView);
    table_.comment = std::move(comment);
    const std::string_view rest = first_line.substr(table_.is_view ? kView.size() : kTable.size());
    table_.name = rest.substr(0, rest.find(' '));
    table_.sql = first_line;
  }

  // True at the statement's end.
  bool Add(std::string_view line) {
    const bool ends = line.ends_with(';');
    table_.sql.append("\n").append(ends ? line.substr(0, line.size() - 1) : line);
    if (!ends && !table_.is_view) AddColumn(Trimmed(line));
    return ends;
  }
  SchemaTable Take() { return std::move(table_); }

 private:
  void AddColumn(std::string_view line) {
    constexpr std::string_view kOneOf = "-- one of: ";
    if (line.starts_with("-- ")) {
      AppendWords(vocabulary_, line.substr(line.starts_with(kOneOf) ? kOneOf.size() : 3));
      return;
    }
    SchemaColumn column;
    if (size_t dashes = line.find("--"); dashes != std::string_view::npos) {
      column.comment = Trimmed(line.substr(dashes + 2));
      line = Trimmed(line.substr(0, dashes));
    }
    const size_t name_end = line.find(' ');
    column.name = line.substr(0, name_end);
    line.remove_prefix(name_end + 1);
    column.type = line.substr(0, line.find(' '));
    column.vocabulary = Words(vocabulary_);
    vocabulary_.clear();
    table_.columns.push_back(std::move(column));
  }

  SchemaTable table_;
  std::string vocabulary_;
};

std::vector<SchemaTable> ParseSchema(const std::string& text) {
  std::vector<SchemaTable> tables;
  std::string comment;
  std::optional<StatementReader> statement;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    if (statement) {
      if (!statement->Add(line)) continue;
      tables.push_back(statement->Take());
      statement.reset();
    } else if (line.starts_with("-- ")) {
      AppendWords(comment, line.substr(3));
      continue;
    } else if (line.starts_with(kTable) || line.starts_with(kView)) {
      statement.emplace(line, std::move(comment));
    }
    comment.clear();
  }
  return tables;
}

std::vector<ExampleQuery> ParseExamples(const std::string& text) {
  std::vector<ExampleQuery> examples;
  bool in_query = true;  // the file's own comment belongs to no query
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    if (line.empty()) {
      in_query = false;
    } else if (line.starts_with("-- ") && !in_query) {
      examples.push_back({line.substr(3), ""});
      in_query = true;
    } else if (!examples.empty()) {
      if (line.starts_with("-- ")) {
        AppendWords(examples.back().title, line.substr(3));
      } else {
        examples.back().sql.append(line).append("\n");
      }
    }
  }
  return examples;
}

}  // namespace

std::string SchemaTable::SqlIn(std::string_view schema) const {
  std::string text = sql;
  text.insert(is_view ? kView.size() : kTable.size(), std::string(schema) + ".");
  return text;
}

const std::vector<SchemaTable>& Schema() {
  static const std::vector<SchemaTable> tables = ParseSchema(kSchemaSql);
  return tables;
}

const SchemaTable* FindTable(std::string_view name) {
  for (const SchemaTable& table : Schema()) {
    if (table.name == name) return &table;
  }
  return nullptr;
}

int SchemaVersion() {
  constexpr std::string_view kPragma = "PRAGMA user_version = ";
  const std::string_view text = kSchemaSql;
  const size_t at = text.find(kPragma);
  IMG_CHECK(at != std::string_view::npos);
  int version = 0;
  const char* digits = text.data() + at + kPragma.size();
  std::from_chars(digits, text.data() + text.size(), version);
  return version;
}

const std::vector<ExampleQuery>& ExampleQueries() {
  static const std::vector<ExampleQuery> examples = ParseExamples(kExampleQueriesSql);
  return examples;
}

}  // namespace imgfsck
