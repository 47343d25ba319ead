// SPDX-License-Identifier: Apache-2.0
#include "triage/rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>

#include "base/interrupt.h"
#include "base/text.h"
#include "io/file.h"
#include "model/query.h"

namespace imgfsck {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr uint64_t kLongestRule = kMiB;
constexpr size_t kMostHits = 1000;
constexpr int kStepsBetween = 10000;    // of SQLite's machine, between two looks at the clock
constexpr uint64_t kMostLooks = 20000;  // 200 million steps: a dozen seconds
constexpr auto kMostTime = std::chrono::seconds(60);
constexpr int kLongestValue = 1 << 20;  // bytes that a rule may make up

// Ends a query that takes too many steps, or that stands still between them.
struct Budget {
  Clock::time_point deadline = Clock::now() + kMostTime;
  uint64_t looks = 0;
  bool spent = false;

  static int Look(void* self) {
    auto& budget = *static_cast<Budget*>(self);
    budget.spent = ++budget.looks > kMostLooks || Clock::now() > budget.deadline;
    return budget.spent || StopRequested() ? 1 : 0;
  }
};

int ColumnNamed(const Statement& statement, std::string_view name) {
  for (int i = 0; i < statement.columns(); ++i) {
    if (statement.NameOf(i) == name) return i;
  }
  return -1;
}

std::optional<uint64_t> NumberAt(const Statement& row, int column) {
  if (column < 0 || row.TypeOf(column) != SQLITE_INTEGER || row.Integer(column) < 0) {
    return std::nullopt;
  }
  return static_cast<uint64_t>(row.Integer(column));
}

bool IsSeverity(std::string_view text) {
  return text == "corruption" || text == "leak" || text == "warning" || text == "info";
}

Status Collect(Statement& statement, RuleFacts* facts) {
  const int severity = ColumnNamed(statement, "severity"),
            message = ColumnNamed(statement, "message"), offset = ColumnNamed(statement, "offset"),
            length = ColumnNamed(statement, "length");
  if (severity < 0 || message < 0 || offset < 0 || length < 0) {
    return Error{ErrorCode::kInvalid, "it has to yield severity, message, offset and length", {}};
  }
  while (true) {
    IMG_ASSIGN_OR_RETURN(const bool row, statement.Step());
    if (!row) return Ok();
    if (facts->hits.size() >= kMostHits) {
      facts->more = true;
      return Ok();
    }
    RuleHit hit;
    hit.severity = ValidUtf8(statement.Text(severity));
    if (!IsSeverity(hit.severity)) {
      return Error{ErrorCode::kInvalid,
                   "a severity is corruption, leak, warning or info, not " + hit.severity,
                   {}};
    }
    hit.message = ValidUtf8(statement.Text(message));
    hit.offset = NumberAt(statement, offset);
    hit.length = NumberAt(statement, length);
    facts->hits.push_back(std::move(hit));
  }
}

Status RunRule(const Rule& rule, const ModelSource& source, RuleFacts* facts) {
  IMG_ASSIGN_OR_RETURN(const auto model, LiveModel::Open(source));
  sqlite3* db = model->db();
  Budget budget;
  sqlite3_limit(db, SQLITE_LIMIT_LENGTH, kLongestValue);
  sqlite3_limit(db, SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1000);
  ReadOnlyScope scope(db);
  sqlite3_progress_handler(db, kStepsBetween, Budget::Look, &budget);
  std::string_view rest = rule.sql;
  Status done;
  bool ran = false;
  while (done && !rest.empty()) {
    auto statement = Statement::Prepare(db, rest, &rest);
    if (!statement) {
      done = Error(std::move(statement).error());
    } else if (!statement->empty()) {
      done = ran ? Status(Error{ErrorCode::kInvalid, "it is more than one query", {}})
                 : Collect(*statement, facts);
      ran = true;
    }
  }
  sqlite3_progress_handler(db, 0, nullptr, nullptr);
  if (budget.spent) return Error{ErrorCode::kTooLarge, "it takes too long", {}};
  if (!done) return model->Explain(std::move(done).error());
  if (!ran) return Error{ErrorCode::kInvalid, "it holds no query", {}};
  return Ok();
}

Result<std::string> ReadRule(const std::string& path) {
  IMG_ASSIGN_OR_RETURN(const auto file, FileSource::Open(path));
  if (file->Size() > kLongestRule) {
    return Error{ErrorCode::kTooLarge, Printable(path) + " is too long for a rule", {}};
  }
  ByteVector bytes(file->Size());
  IMG_RETURN_IF_ERROR(ReadExact(*file, 0, bytes));
  return std::string(AsText(bytes));
}

}  // namespace

Result<std::vector<Rule>> LoadRules(const std::string& folder) {
  std::error_code error;
  std::vector<std::string> paths;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    if (entry->path().extension() == ".sql") paths.push_back(entry->path().string());
  }
  if (error) return ErrorFromErrno(error.value(), "read " + Printable(folder));
  std::sort(paths.begin(), paths.end());
  std::vector<Rule> rules;
  for (const std::string& path : paths) {
    IMG_ASSIGN_OR_RETURN(std::string sql, ReadRule(path));
    rules.push_back({fs::path(path).stem().string(), std::move(sql)});
  }
  if (rules.empty()) {
    return Error{ErrorCode::kNotFound, Printable(folder) + " holds no rule (*.sql)", {}};
  }
  return rules;
}

std::vector<RuleFacts> RunRules(const std::vector<Rule>& rules, const ModelSource& source) {
  std::vector<RuleFacts> list;
  for (const Rule& rule : rules) {
    RuleFacts facts;
    facts.rule = rule.name;
    if (auto done = RunRule(rule, source, &facts); !done) {
      facts.trouble = done.error().message;
      facts.hits.clear();
      facts.more = false;
    }
    list.push_back(std::move(facts));
  }
  return list;
}

}  // namespace imgfsck
