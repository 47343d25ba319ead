// SPDX-License-Identifier: Apache-2.0
// The columns of the virtual tables, numbered as in schema.sql. Hidden columns answer NULL: their
// constraints are met by the scan.
#include <string>

#include "base/bytes.h"
#include "base/json_writer.h"
#include "model/live_rows.h"

namespace imgfsck {
namespace {

class ColumnWriter {
 public:
  ColumnWriter(sqlite3_context* context, LiveState& state) : context_(context), state_(state) {}

  void ImageId() { sqlite3_result_int64(context_, state_.source().image_id); }
  void Integer(uint64_t value) {
    if (value <= INT64_MAX) sqlite3_result_int64(context_, static_cast<sqlite3_int64>(value));
  }
  void Integer(const std::optional<uint64_t>& value) {
    if (value) Integer(*value);
  }
  void Real(double value) { sqlite3_result_double(context_, value); }
  // A text that outlives the statement and is valid UTF-8.
  void Literal(std::string_view text) { Put(text, SQLITE_STATIC); }
  void Name(std::string_view text) { Literal(state_.Intern(text)); }
  void Text(std::string_view text) { Put(ValidUtf8(text), SQLITE_TRANSIENT); }
  void TextOrNull(std::string_view text) {
    if (!text.empty()) Text(text);
  }

 private:
  void Put(std::string_view text, sqlite3_destructor_type keep) {
    sqlite3_result_text64(context_, text.empty() ? "" : text.data(), text.size(), keep,
                          SQLITE_UTF8);
  }
  sqlite3_context* context_;
  LiveState& state_;
};

std::string ClaimantsJson(const std::vector<Claimant>& claimants) {
  std::string text;
  TextWriter out(&text);
  JsonWriter json(out);
  json.BeginArray();
  for (const Claimant& claimant : claimants) {
    json.BeginObject();
    json.Member("layer", claimant.layer);
    if (claimant.guest) {
      json.Member("guest-offset", claimant.guest->offset.value);
      json.Member("guest-length", claimant.guest->length);
    }
    json.Member("structure", claimant.structure);
    json.EndObject();
  }
  json.EndArray();
  out.Flush();
  return text;
}

template <class R>
std::optional<uint64_t> StartOf(const std::optional<R>& range) {
  return range ? std::optional(range->offset.value) : std::nullopt;
}
template <class R>
std::optional<uint64_t> LengthOf(const std::optional<R>& range) {
  return range ? std::optional(range->length) : std::nullopt;
}

}  // namespace

void PutColumn(sqlite3_context* context, LiveState& state, const MappingRow& row, int column) {
  ColumnWriter put(context, state);
  switch (column) {
    case 0:
      return put.ImageId();
    case 1:
      return put.Name(row.layer);
    case 2:
      return put.Integer(row.guest_offset);
    case 3:
      return put.Integer(row.length);
    case 4:
      return put.Literal(ToText(row.state));
    case 5:
      return put.Integer(row.host_offset);
    case 6:
      return put.Integer(row.host_length);
    case 7:
      return put.Integer(uint64_t{row.flags});
    default:
      return;
  }
}

void PutColumn(sqlite3_context* context, LiveState& state, const RegionRow& row, int column) {
  ColumnWriter put(context, state);
  switch (column) {
    case 0:
      return put.ImageId();
    case 1:
      return put.Integer(row.host_offset);
    case 2:
      return put.Integer(row.length);
    case 3:
      return put.Literal(row.kind);
    case 4:
      return put.Name(row.owner);
    case 5:
      return put.Integer(row.guest_offset);
    default:
      return;
  }
}

void PutColumn(sqlite3_context* context, LiveState& state, const RefcountRow& row, int column) {
  ColumnWriter put(context, state);
  switch (column) {
    case 0:
      return put.ImageId();
    case 1:
      return put.Integer(row.host_offset);
    case 2:
      return put.Integer(row.length);
    case 3:
      return put.Integer(row.stored);
    case 4:
      return put.Integer(row.referenced);
    case 5:
      if (row.stored <= INT64_MAX) return;
      return put.Text(Hex(row.stored).substr(2));
    default:
      return;
  }
}

void PutColumn(sqlite3_context* context, LiveState& state, const BitmapRangeRow& row, int column) {
  ColumnWriter put(context, state);
  switch (column) {
    case 0:
      return put.ImageId();
    case 1:
      return put.Name(row.bitmap);
    case 2:
      return put.Integer(row.guest_offset);
    case 3:
      return put.Integer(row.length);
    default:
      return;
  }
}

void PutColumn(sqlite3_context* context, LiveState& state, FindingPointer row, int column) {
  ColumnWriter put(context, state);
  switch (column) {
    case 0:
      return put.ImageId();
    case 1:
      return put.Literal(row->info().code);
    case 2:
      return put.Literal(ToText(row->severity_or_default()));
    case 3:
      return put.Text(row->structure);
    case 4:
      return put.Integer(StartOf(row->host));
    case 5:
      return put.Integer(LengthOf(row->host));
    case 6:
      return put.Integer(StartOf(row->guest));
    case 7:
      return put.Integer(LengthOf(row->guest));
    case 8:
      return put.Integer(row->count);
    case 9:
      return put.Text(row->Message());
    case 10:
      return put.Literal(ToText(row->repair_or_default()));
    case 11:
      return put.Integer(uint64_t{row->fixed});
    case 12:
      return put.TextOrNull(row->layer);
    case 13:
      return put.Literal(ToText(row->effect_or_default()));
    case 14:
      return put.Real(row->confidence);
    case 15:
      return put.TextOrNull(row->evidence);
    case 16:
      if (row->also.empty()) return put.Literal("[]");
      return put.Text(ClaimantsJson(row->also));
    default:
      return;
  }
}

}  // namespace imgfsck
