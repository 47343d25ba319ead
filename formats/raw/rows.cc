// SPDX-License-Identifier: Apache-2.0
#include "formats/raw/rows.h"

#include <utility>

#include "base/checked.h"
#include "formats/common/stored.h"

namespace imgfsck::raw {
namespace {

// A stream of rows that are all known beforehand.
template <class Row>
class FixedCursor : public RowCursor<Row> {
 public:
  explicit FixedCursor(std::vector<Row> rows) : rows_(std::move(rows)) {}
  Status NextBatch(std::vector<Row>* batch) override {
    batch->clear();
    std::swap(*batch, rows_);
    return Ok();
  }

 private:
  std::vector<Row> rows_;
};

class RawRows : public ImageRows {
 public:
  RawRows(const ByteSource& source, std::string path)
      : path_(std::move(path)), size_(source.Size()), allocated_(StoredBytes(source)) {}

  ImageRow Image() const override {
    return {path_, "raw", "", VirtualSizeOf(size_), size_, kSector, allocated_};
  }
  std::vector<FieldRow> Fields() const override { return {}; }
  std::vector<StructurePiece> Structures() const override { return {}; }

  std::unique_ptr<RowCursor<MappingRow>> Mappings(const RowQuery& query) const override {
    std::vector<MappingRow> rows;
    const bool wanted = !query.layer || *query.layer == kActiveLayer;
    if (wanted && size_ > 0) {
      rows.push_back({kActiveLayer, 0, VirtualSizeOf(size_), MappingState::kData, 0, size_, 0});
    }
    return std::make_unique<FixedCursor<MappingRow>>(std::move(rows));
  }
  std::unique_ptr<RowCursor<RegionRow>> Regions(const RowQuery&) const override {
    std::vector<RegionRow> rows;
    if (size_ > 0) rows.push_back({0, size_, "data", std::string(kActiveLayer), 0});
    return std::make_unique<FixedCursor<RegionRow>>(std::move(rows));
  }

 private:
  std::string path_;
  uint64_t size_, allocated_;
};

}  // namespace

uint64_t VirtualSizeOf(uint64_t file_size) { return AlignUp(file_size, kSector); }

std::unique_ptr<ImageRows> MakeRows(const ByteSource& source, const std::string& path) {
  return std::make_unique<RawRows>(source, path);
}

}  // namespace imgfsck::raw
