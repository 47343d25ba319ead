// SPDX-License-Identifier: Apache-2.0
#include "triage/report/name_tables.h"

#include "base/bytes.h"

namespace imgfsck {
namespace {

Value PathHex(const std::string& path) {
  if (ValidUtf8(path) == path) return {};
  return HexEncode(AsBytes(path));
}
Value Volume(uint32_t volume) { return static_cast<int64_t>(volume); }
Value KindText(NameKind kind) { return std::string(ToText(kind)); }

}  // namespace

Result<NameTables> NameTables::Create(sqlite3* db) {
  NameTables tables;
  tables.db_ = db;
  IMG_RETURN_IF_ERROR(Exec(db, kNamesSchemaSql));
  return tables;
}

Status NameTables::Add(int64_t image_id, const std::string& layer, const NameFacts& names) {
  IMG_RETURN_IF_ERROR(Exec(db_, "BEGIN"));
  if (auto done = Rows(image_id, layer, names); !done) {
    (void)Exec(db_, "ROLLBACK");
    return done;
  }
  return Exec(db_, "COMMIT");
}

Status NameTables::Rows(int64_t image_id, const std::string& layer, const NameFacts& names) {
  IMG_ASSIGN_OR_RETURN(Inserter volumes, Inserter::Into(db_, "guest_volume", 8));
  const Value id = image_id, of = ValidUtf8(layer);
  if (!names.trouble.empty()) {
    IMG_RETURN_IF_ERROR(volumes.Row(
        {id, of, Value(), Value(), Value(), Value(), int64_t{0}, TextOrNull(names.trouble)}));
  }
  for (size_t i = 0; i < names.volumes.size(); ++i) {
    const GuestVolume& v = names.volumes[i];
    IMG_RETURN_IF_ERROR(
        volumes.Row({id, of, static_cast<int64_t>(i), Number(v.offset), Number(v.length),
                     TextOrNull(v.type), int64_t{v.mapped}, TextOrNull(v.trouble)}));
  }
  IMG_ASSIGN_OR_RETURN(Inserter hits, Inserter::Into(db_, "guest_name", 9));
  for (const NameHit& hit : names.hits) {
    IMG_RETURN_IF_ERROR(
        hits.Row({id, of, Volume(hit.volume), Number(hit.range.offset.value),
                  Number(hit.range.length), KindText(hit.kind), TextOrNull(hit.path),
                  PathHex(hit.path), hit.file_offset ? Number(*hit.file_offset) : Value()}));
  }
  IMG_ASSIGN_OR_RETURN(Inserter changes, Inserter::Into(db_, "guest_change", 8));
  for (const RangeSetNames& set : names.sets) {
    const Value bitmap = ValidUtf8(set.what);
    if (!set.trouble.empty()) {
      IMG_RETURN_IF_ERROR(changes.Row(
          {id, bitmap, Value(), Value(), Value(), Value(), Value(), TextOrNull(set.trouble)}));
    }
    for (const NamedShare& share : set.shares) {
      IMG_RETURN_IF_ERROR(
          changes.Row({id, bitmap, Volume(share.volume), KindText(share.kind),
                       TextOrNull(share.path), PathHex(share.path), Number(share.bytes), Value()}));
    }
  }
  return Ok();
}

}  // namespace imgfsck
