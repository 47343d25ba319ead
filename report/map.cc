// SPDX-License-Identifier: Apache-2.0
#include "report/map.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "base/text.h"

namespace imgfsck {
namespace {

bool Continues(const MapEntry& last, const MapEntry& next) {
  return last.start + last.length == next.start && last.depth == next.depth &&
         last.present == next.present && last.zero == next.zero && last.data == next.data &&
         last.offset.has_value() == next.offset.has_value() &&
         (!last.offset || *last.offset + last.length == *next.offset) &&
         last.filename == next.filename;
}

}  // namespace

MapEntry MapEntryOf(const MappingRow& row, uint64_t depth, bool ends_chain,
                    std::string_view filename) {
  MapEntry entry{row.guest_offset, row.length, depth, true, false, false, std::nullopt, filename};
  switch (row.state) {
    case MappingState::kUnallocated:
      entry.present = false;
      entry.zero = ends_chain;
      break;  // there may be a place for it nevertheless
    case MappingState::kZero:
      entry.zero = true;
      break;
    case MappingState::kData:
      entry.data = true;
      break;
    case MappingState::kCompressed:
      entry.data = true;
      return entry;
  }
  if ((row.flags & kMappingEncrypted) == 0) entry.offset = row.host_offset;
  return entry;
}

MapWriter::MapWriter(MapStyle style, TextWriter& out) : style_(style), out_(out) {
  if (style_ == MapStyle::kJson) {
    out_.Put('[');
  } else {
    out_.Put(fmt::format("{:<16}{:<16}{:<16}{}\n", "Offset", "Length", "Mapped to", "File"));
  }
}

void MapWriter::Add(const MapEntry& entry) {
  if (pending_ && Continues(*pending_, entry)) {
    pending_->length += entry.length;
    return;
  }
  if (pending_) Put(*pending_, false);
  pending_ = entry;
}

Status MapWriter::Finish() {
  if (pending_) Put(*pending_, true);
  pending_.reset();
  if (style_ == MapStyle::kJson) out_.Put("]\n");
  return out_.ok() ? Ok() : out_.Finish();
}

void MapWriter::Put(const MapEntry& entry, bool last) {
  style_ == MapStyle::kJson ? PutJson(entry, last) : PutText(entry);
}

void MapWriter::PutJson(const MapEntry& entry, bool last) {
  out_.Put("{ \"start\": ");
  out_.PutNumber(entry.start);
  out_.Put(", \"length\": ");
  out_.PutNumber(entry.length);
  out_.Put(", \"depth\": ");
  out_.PutNumber(entry.depth);
  out_.Put(entry.present ? ", \"present\": true" : ", \"present\": false");
  out_.Put(entry.zero ? ", \"zero\": true" : ", \"zero\": false");
  out_.Put(entry.data ? ", \"data\": true" : ", \"data\": false");
  if (entry.offset) {
    out_.Put(", \"offset\": ");
    out_.PutNumber(*entry.offset);
  }
  out_.Put(last ? "}" : "},\n");
}

// Only what is stored somewhere. Where it is not stored as it is (compressed, encrypted), "-".
void MapWriter::PutText(const MapEntry& entry) {
  if (!entry.data || entry.zero) return;
  auto hex = [](uint64_t value) { return value == 0 ? std::string("0") : Hex(value); };
  out_.Put(fmt::format("{:<16}{:<16}{:<16}{}\n", hex(entry.start), hex(entry.length),
                       entry.offset ? hex(*entry.offset) : "-", Printable(entry.filename)));
}

Status WriteMap(const ImageRows& rows, const std::string& layer, MapStyle style, TextWriter& out) {
  const std::vector<std::string> layers = rows.Layers();
  if (std::find(layers.begin(), layers.end(), layer) == layers.end()) {
    return Error{ErrorCode::kNotFound, "the image has no snapshot " + Printable(layer), {}};
  }
  const std::string path = rows.Image().path;
  const std::vector<LinkRow> links = rows.Links();
  const bool ends_chain = std::none_of(links.begin(), links.end(), [](const LinkRow& link) {
    return link.kind == "backing" || link.kind == "parent";
  });
  // QEMU knows no parents of a VHD: blocks without a place are zeros of its own.
  const bool own_zeros = rows.Image().format == "vpc" && ends_chain;
  RowQuery query;
  query.layer = layer;
  MapWriter writer(style, out);
  if (auto cursor = rows.Mappings(query)) {
    std::vector<MappingRow> batch;
    while (out.ok()) {
      IMG_RETURN_IF_ERROR(cursor->NextBatch(&batch));
      if (batch.empty()) break;
      for (const MappingRow& row : batch) {
        if (row.layer != layer) continue;
        MapEntry entry = MapEntryOf(row, 0, ends_chain, path);
        entry.present = entry.present || own_zeros;
        writer.Add(entry);
      }
    }
  }
  return writer.Finish();
}

}  // namespace imgfsck
