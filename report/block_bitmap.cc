// SPDX-License-Identifier: Apache-2.0
#include "report/block_bitmap.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/bytes.h"
#include "base/units.h"

namespace imgfsck {
namespace {

constexpr std::string_view kKind = "block-bitmap";
constexpr uint64_t kMostBytes = kMiB;  // a bitmap of 4 GiB

std::optional<uint64_t> NumberOf(std::string_view name) {
  if (!name.starts_with(kKind)) return std::nullopt;
  name.remove_prefix(kKind.size());
  if (name.size() < 3 || name.front() != '[' || name.back() != ']') return std::nullopt;
  uint64_t number = 0;
  const char *begin = name.data() + 1, *end = name.data() + name.size() - 1;
  auto [stop, error] = std::from_chars(begin, end, number);
  if (error != std::errc() || stop != end) return std::nullopt;
  return number;
}

}  // namespace

Result<std::optional<StructurePiece>> FindBlockBitmap(const ImageRows& rows,
                                                      std::string_view name) {
  std::optional<StructurePiece> found;
  const std::optional<uint64_t> number = NumberOf(name);
  const uint64_t unit = rows.Image().cluster_size;
  if (!number || unit == 0 || *number > UINT64_MAX / unit - 1) return found;
  RowQuery query;
  query.guest_begin = *number * unit;
  query.guest_end = query.guest_begin + unit;
  auto cursor = rows.Regions(query);
  std::vector<RegionRow> batch;
  do {
    IMG_RETURN_IF_ERROR(cursor->NextBatch(&batch));
    for (const RegionRow& row : batch) {
      if (row.kind != kKind || row.guest_offset != query.guest_begin) continue;
      found = StructurePiece{std::string(name), MakeHostRange(row.host_offset, row.length)};
      return found;
    }
  } while (!batch.empty());
  return found;
}

Result<std::vector<FieldRow>> FieldsOfBlockBitmap(const ByteSource& source,
                                                  const StructurePiece& piece) {
  ByteVector bitmap(std::min(piece.host.length, kMostBytes));
  IMG_ASSIGN_OR_RETURN(size_t got, source.ReadAt(piece.host.offset.value, bitmap));
  bitmap.resize(got);
  auto written = [&](uint64_t sector) {
    return (bitmap[sector / 8] & 0x80U >> sector % 8) != 0;  // the most significant bit is first
  };
  std::vector<FieldRow> fields;
  for (uint64_t at = 0, end = bitmap.size() * 8; at < end;) {
    if (!written(at)) {
      ++at;
      continue;
    }
    uint64_t first = at;
    while (at < end && written(at)) ++at;
    std::string run = at - first == 1 ? fmt::format("sector {}", first)
                                      : fmt::format("sectors {} to {}", first, at - 1);
    uint64_t byte = first / 8, length = (at - 1) / 8 - byte + 1;
    // Runs that share bytes are one row: a hexdump has no smaller unit.
    uint64_t host = piece.host.offset.value + byte;
    if (!fields.empty() && fields.back().host_offset + fields.back().length > host) {
      FieldRow& last = fields.back();
      last.length = host + length - last.host_offset;
      if (last.meaning.size() < 200) last.meaning += ", " + run;
      continue;
    }
    fields.push_back({piece.name, "written", host, length, std::nullopt, "", std::move(run)});
  }
  return fields;
}

}  // namespace imgfsck
