// SPDX-License-Identifier: Apache-2.0
// A plan is a text with two characters for each value handed over: the column's role and the
// operator.
#include "model/live_scan.h"

#include <algorithm>

namespace imgfsck {
namespace {

constexpr double kManyRows = 1e7;

// '=', '<', '>' and, for "or equal", '[' and ']'. 0: nothing that we use.
char OperatorOf(unsigned char op) {
  switch (op) {
    case SQLITE_INDEX_CONSTRAINT_EQ:
      return '=';
    case SQLITE_INDEX_CONSTRAINT_LT:
      return '<';
    case SQLITE_INDEX_CONSTRAINT_LE:
      return '[';
    case SQLITE_INDEX_CONSTRAINT_GT:
      return '>';
    case SQLITE_INDEX_CONSTRAINT_GE:
      return ']';
    default:
      return 0;
  }
}

bool IsHidden(ColumnRole role) {
  return role == ColumnRole::kGuestAt || role == ColumnRole::kHostAt ||
         role == ColumnRole::kPerCluster;
}

bool Usable(ColumnRole role, char op) {
  if (op == 0 || role == ColumnRole::kNone || role == ColumnRole::kImage) return false;
  return op == '=' || role == ColumnRole::kGuest || role == ColumnRole::kHost;
}

ColumnRole RoleOf(const ScanShape& shape, int column) {
  const auto index = static_cast<size_t>(column);
  return column >= 0 && index < shape.roles.size() ? shape.roles[index] : ColumnRole::kNone;
}

// True when rows come in the order asked for: [image,] [layer,] guest, in one layer.
bool OrderIsOurs(const ScanShape& shape, const std::string& plan, const sqlite3_index_info& info) {
  if (!shape.guest_ordered || info.nOrderBy == 0) return false;
  if (!shape.one_layer && plan.find("l=") == std::string::npos) return false;
  bool guest_seen = false;
  for (int i = 0; i < info.nOrderBy; ++i) {
    const ColumnRole role = RoleOf(shape, info.aOrderBy[i].iColumn);
    if (role == ColumnRole::kImage || role == ColumnRole::kLayer) continue;  // the same in all rows
    if (role != ColumnRole::kGuest || guest_seen || info.aOrderBy[i].desc) return false;
    guest_seen = true;
  }
  return true;
}

void Estimate(const std::string& plan, sqlite3_index_info* info) {
  double work = kManyRows, rows = kManyRows;
  auto has = [&](std::string_view part) { return plan.find(part) != std::string::npos; };
  if (has("l=")) work /= 4, rows /= 4;
  if (has("G=") || has("g=")) {
    work = rows = 2;
  } else {
    if (has("g>") || has("g]")) work /= 4, rows /= 4;
    if (has("g<") || has("g[")) work /= 4, rows /= 4;
  }
  // The host side is only filtered: the walk stays the same.
  if (has("h") || has("H")) rows = std::max(1.0, rows / 1000);
  info->estimatedCost = work + rows;
  info->estimatedRows = static_cast<sqlite3_int64>(rows);
}

// Narrows `starts` by `op` with `value`; false when nothing is left.
bool Narrow(Scan::Starts& starts, char op, int64_t value) {
  const bool below = op == '<' || op == '[';
  if (value < 0) return !below && op != '=';  // all offsets are above
  const auto bound = static_cast<uint64_t>(value);
  if (op == '<' && bound == 0) return false;
  if (op == '=' || op == '>' || op == ']') {
    starts.first = std::max(starts.first, op == '>' ? bound + 1 : bound);
  }
  if (op == '=' || below) starts.last = std::min(starts.last, op == '<' ? bound - 1 : bound);
  return starts.first <= starts.last;
}

void Apply(Scan& scan, ColumnRole role, char op, sqlite3_value* value) {
  if (sqlite3_value_type(value) == SQLITE_NULL) {
    scan.nothing = true;  // no comparison with NULL holds
    return;
  }
  if (role == ColumnRole::kLayer) {
    if (sqlite3_value_type(value) != SQLITE_TEXT) return;
    const auto* text = reinterpret_cast<const char*>(sqlite3_value_text(value));
    scan.layer.emplace(text, static_cast<size_t>(sqlite3_value_bytes(value)));
    return;
  }
  // Fractions and texts are left to SQLite, except in hidden columns, which only we can judge.
  const bool integer = sqlite3_value_numeric_type(value) == SQLITE_INTEGER;
  const int64_t number = sqlite3_value_int64(value);
  if (IsHidden(role) && (!integer || number < 0)) {
    scan.nothing = true;
    return;
  }
  if (!integer) return;
  switch (role) {
    case ColumnRole::kGuest:
      if (!Narrow(scan.guest, op, number)) scan.nothing = true;
      break;
    case ColumnRole::kHost:
      if (!Narrow(scan.host, op, number)) scan.nothing = true;
      break;
    case ColumnRole::kGuestAt:
      scan.guest_at = static_cast<uint64_t>(number);
      break;
    case ColumnRole::kHostAt:
      scan.host_at = static_cast<uint64_t>(number);
      break;
    case ColumnRole::kPerCluster:
      scan.per_cluster = number != 0;
      break;
    default:
      break;
  }
}

}  // namespace

int PlanScan(const ScanShape& shape, sqlite3_index_info* info) {
  std::string plan;
  for (int i = 0; i < info->nConstraint; ++i) {
    const auto& constraint = info->aConstraint[i];
    const ColumnRole role = RoleOf(shape, constraint.iColumn);
    const char op = OperatorOf(constraint.op);
    if (!Usable(role, op)) {
      if (IsHidden(role)) return SQLITE_CONSTRAINT;  // only "=" has a meaning there
      continue;
    }
    if (!constraint.usable) {
      if (IsHidden(role)) return SQLITE_CONSTRAINT;  // another join order gives the value
      continue;
    }
    if (role == ColumnRole::kLayer &&
        std::string_view(sqlite3_vtab_collation(info, i)) != "BINARY") {
      continue;
    }
    plan += static_cast<char>(role);
    plan += op;
    info->aConstraintUsage[i].argvIndex = static_cast<int>(plan.size() / 2);
    info->aConstraintUsage[i].omit = IsHidden(role);
  }
  Estimate(plan, info);
  info->orderByConsumed = OrderIsOurs(shape, plan, *info) ? 1 : 0;
  info->idxStr = sqlite3_mprintf("%s", plan.c_str());
  info->needToFreeIdxStr = 1;
  return info->idxStr == nullptr ? SQLITE_NOMEM : SQLITE_OK;
}

Scan ReadScan(const char* plan, int count, sqlite3_value** values) {
  Scan scan;
  const std::string_view text = plan == nullptr ? "" : plan;
  for (size_t i = 0; i < static_cast<size_t>(count) && 2 * i + 1 < text.size(); ++i) {
    Apply(scan, static_cast<ColumnRole>(text[2 * i]), text[2 * i + 1], values[i]);
  }
  return scan;
}

}  // namespace imgfsck
