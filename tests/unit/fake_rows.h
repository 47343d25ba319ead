// SPDX-License-Identifier: Apache-2.0
// An image's rows from plain vectors, for tests. Remembers what it was asked, and how many mapping
// rows it handed out.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "model/rows.h"

namespace imgfsck {

// Yields `rows` in batches of `batch`.
template <class Row>
class VectorCursor : public RowCursor<Row> {
 public:
  explicit VectorCursor(std::vector<Row> rows, size_t batch = 1000, size_t* yielded = nullptr)
      : rows_(std::move(rows)), batch_(batch), yielded_(yielded) {}
  Status NextBatch(std::vector<Row>* out) override {
    out->clear();
    while (next_ < rows_.size() && out->size() < batch_) out->push_back(rows_[next_++]);
    if (yielded_ != nullptr) *yielded_ += out->size();
    return Ok();
  }

 private:
  std::vector<Row> rows_;
  size_t batch_, next_ = 0;
  size_t* yielded_;
};

class FakeRows : public ImageRows {
 public:
  ImageRow image;
  std::vector<FieldRow> fields;
  std::vector<SnapshotRow> snapshots;
  std::vector<BitmapRow> bitmaps;
  std::vector<BitmapRangeRow> bitmap_ranges;
  std::vector<LinkRow> links;
  std::vector<StructurePiece> structures;
  std::vector<std::string> layers = {std::string(kActiveLayer)};
  std::vector<MappingRow> mappings;
  std::vector<RegionRow> regions;

  bool cut = false;           // cut mapping rows at the ends of the range asked for, as formats may
  bool ignore_range = false;  // yield rows outside the range asked for, as formats may
  Status fail = Ok();         // what the cursors answer

  mutable std::vector<RowQuery> mapping_queries, region_queries;
  mutable size_t mappings_yielded = 0;

  ImageRow Image() const override { return image; }
  std::vector<FieldRow> Fields() const override { return fields; }
  std::vector<SnapshotRow> Snapshots() const override { return snapshots; }
  std::vector<BitmapRow> Bitmaps() const override { return bitmaps; }
  std::unique_ptr<RowCursor<BitmapRangeRow>> BitmapRanges() const override {
    return std::make_unique<VectorCursor<BitmapRangeRow>>(bitmap_ranges);
  }
  std::vector<LinkRow> Links() const override { return links; }
  std::vector<StructurePiece> Structures() const override { return structures; }
  std::vector<std::string> Layers() const override { return layers; }

  std::unique_ptr<RowCursor<MappingRow>> Mappings(const RowQuery& query) const override {
    mapping_queries.push_back(query);
    std::vector<MappingRow> wanted;
    for (const MappingRow& row : mappings) {
      if (query.layer && row.layer != *query.layer) continue;
      if (ignore_range) {
        wanted.push_back(row);
        continue;
      }
      if (row.guest_offset >= query.guest_end) continue;
      if (row.guest_offset + row.length <= query.guest_begin) continue;
      if (!HostWanted(query, row.host_offset, row.host_length.value_or(row.length))) continue;
      wanted.push_back(cut ? Cut(row, query) : row);
    }
    if (!fail) return std::make_unique<FailingCursor>(fail);
    return std::make_unique<VectorCursor<MappingRow>>(std::move(wanted), 3, &mappings_yielded);
  }
  std::unique_ptr<RowCursor<RegionRow>> Regions(const RowQuery& query) const override {
    region_queries.push_back(query);
    std::vector<RegionRow> wanted;
    for (const RegionRow& row : regions) {
      if (HostWanted(query, row.host_offset, row.length)) wanted.push_back(row);
    }
    return std::make_unique<VectorCursor<RegionRow>>(std::move(wanted));
  }

 private:
  class FailingCursor : public RowCursor<MappingRow> {
   public:
    explicit FailingCursor(Status status) : status_(std::move(status)) {}
    Status NextBatch(std::vector<MappingRow>*) override { return status_; }

   private:
    Status status_;
  };

  static MappingRow Cut(MappingRow row, const RowQuery& query) {
    const uint64_t end = std::min(row.guest_offset + row.length, query.guest_end);
    const uint64_t skip = std::max(row.guest_offset, query.guest_begin) - row.guest_offset;
    row.guest_offset += skip;
    row.length = end - row.guest_offset;
    if (row.host_offset) *row.host_offset += skip;
    return row;
  }
  static bool HostWanted(const RowQuery& query, std::optional<uint64_t> offset, uint64_t length) {
    if (query.host_begin == 0 && query.host_end == UINT64_MAX) return true;
    return offset && *offset<query.host_end&& * offset + length> query.host_begin;
  }
};

}  // namespace imgfsck
