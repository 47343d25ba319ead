// SPDX-License-Identifier: Apache-2.0
#include "formats/qcow2/rows.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "formats/common/stored.h"
#include "formats/qcow2/fields.h"
#include "formats/qcow2/mapping.h"
#include "formats/qcow2/metadata.h"

namespace imgfsck::qcow2 {
namespace {

// Metadata first, then every layer's L2 tables, then its data.
class RegionCursor : public RowCursor<RegionRow> {
 public:
  RegionCursor(const Image& image, const std::vector<std::string>& names, const RowQuery& query)
      : image_(image), names_(names), query_(query) {
    ForEachMeta(image, [&](const MetaRegion& region) {
      Add({region.host.offset.value, region.host.length, KindName(region.kind), Owner(region), {}});
    });
    std::stable_sort(ready_.begin(), ready_.end(), [](const RegionRow& a, const RegionRow& b) {
      return a.host_offset < b.host_offset;
    });
    RowQuery mappings = query;
    mappings.guest_begin = 0;
    mappings.guest_end = UINT64_MAX;
    data_ = MakeMappingCursor(image, names, mappings);
  }

  Status NextBatch(std::vector<RegionRow>* batch) override {
    batch->clear();
    if (!ready_.empty()) {
      batch->swap(ready_);
      return Ok();
    }
    while (batch->empty() && layer_ < image_.LayerCount()) NextTables(batch);
    std::vector<MappingRow> rows;
    while (batch->empty()) {
      IMG_RETURN_IF_ERROR(data_->NextBatch(&rows));
      if (rows.empty()) return Ok();
      for (const MappingRow& row : rows) {
        if (!row.host_offset || (row.flags & kMappingDataFile) != 0) continue;
        bool compressed = row.state == MappingState::kCompressed;
        RegionRow region{*row.host_offset, compressed ? row.host_length.value_or(0) : row.length,
                         compressed ? "compressed" : "data", std::string(row.layer),
                         row.guest_offset};
        if (Wanted(region)) batch->push_back(std::move(region));
      }
    }
    return Ok();
  }

 private:
  std::string Owner(const MetaRegion& region) const {
    switch (region.kind) {
      case MetaKind::kL1:
        return names_[0];
      case MetaKind::kSnapshotL1:
        return names_[region.index + 1];
      case MetaKind::kBitmapTable:
        return ValidUtf8(image_.bitmaps.entries[region.index].name);
      case MetaKind::kBitmapData:
        return ValidUtf8(image_.bitmaps.entries[region.owner].name);
      default:
        return "";
    }
  }
  bool Wanted(const RegionRow& row) const {
    return row.host_offset < query_.host_end && row.host_offset + row.length > query_.host_begin;
  }
  void Add(RegionRow row) {
    if (Wanted(row)) ready_.push_back(std::move(row));
  }
  void NextTables(std::vector<RegionRow>* batch) {
    if (!window_) window_.emplace(image_, layer_);
    uint64_t end = std::min(column_ + 65536, image_.L1Of(layer_).entries);
    for (; column_ < end; ++column_) {
      uint64_t table = TableOffset(image_, window_->At(column_));
      RegionRow row{table, image_.geometry.cluster_size, "l2", names_[layer_],
                    column_ * image_.geometry.l2_span};
      if (table != 0 && Wanted(row)) batch->push_back(std::move(row));
    }
    if (column_ == image_.L1Of(layer_).entries) {
      window_.reset();
      column_ = 0;
      ++layer_;
    }
  }

  const Image& image_;
  const std::vector<std::string>& names_;
  RowQuery query_;
  std::vector<RegionRow> ready_;
  size_t layer_ = 0;
  uint64_t column_ = 0;
  std::optional<L1Window> window_;
  std::unique_ptr<RowCursor<MappingRow>> data_;
};

// Runs of set bits of every bitmap that can be read.
class BitmapRangeCursor : public RowCursor<BitmapRangeRow> {
 public:
  explicit BitmapRangeCursor(const Image& image) : image_(image) {}

  Status NextBatch(std::vector<BitmapRangeRow>* batch) override {
    batch->clear();
    while (batch->size() < 4096 && bitmap_ < image_.bitmaps.entries.size()) {
      const Bitmap& b = image_.bitmaps.entries[bitmap_];
      if (entry_ == 0) table_ = LoadBitmapTable(image_, b);
      if (b.granularity_bits > 40 || entry_ >= table_.size()) {
        Flush(batch);
        ++bitmap_;
        entry_ = 0;
        continue;
      }
      Scan(b, table_[entry_], entry_, batch);
      ++entry_;
    }
    return Ok();
  }

 private:
  void Scan(const Bitmap& b, uint64_t value, uint64_t entry, std::vector<BitmapRangeRow>* batch) {
    uint64_t bits = image_.geometry.cluster_size * 8, first = entry * bits;
    uint64_t offset = value & kOffsetMask;
    if (offset == 0) {
      if ((value & kBitmapAllOnes) != 0) Extend(b, first, bits, batch);
      return;
    }
    if (offset >= image_.file_size) return;
    ByteVector data(image_.geometry.cluster_size);
    std::vector<HostRange> bad;
    ReadTolerant(*image_.source, offset, data, &bad);
    for (uint64_t i = 0; i < bits; ++i) {
      if (i % 8 == 0 && data[i / 8] == 0) {
        i += 7;
      } else if (data[i / 8] >> (i % 8) & 1) {
        Extend(b, first + i, 1, batch);
      }
    }
  }
  void Extend(const Bitmap& b, uint64_t first_bit, uint64_t bits,
              std::vector<BitmapRangeRow>* batch) {
    uint64_t begin = first_bit << b.granularity_bits;
    uint64_t end = std::min((first_bit + bits) << b.granularity_bits, image_.header.size);
    if (begin >= end) return;
    if (open_ && open_->guest_offset + open_->length == begin) {
      open_->length = end - open_->guest_offset;
      return;
    }
    Flush(batch);
    open_ = BitmapRangeRow{ValidUtf8(b.name), begin, end - begin};
  }
  void Flush(std::vector<BitmapRangeRow>* batch) {
    if (open_) batch->push_back(*open_);
    open_.reset();
  }

  const Image& image_;
  size_t bitmap_ = 0;
  uint64_t entry_ = 0;
  std::vector<uint64_t> table_;
  std::optional<BitmapRangeRow> open_;
};

class Rows : public ImageRows {
 public:
  Rows(std::shared_ptr<const qcow2::Image> image, std::string path)
      : image_(std::move(image)), path_(std::move(path)) {
    for (size_t i = 0; i < image_->LayerCount(); ++i) layers_.push_back(image_->LayerName(i));
  }

  ImageRow Image() const override {
    ImageRow row;
    row.path = path_;
    row.format = "qcow2";
    row.version = fmt::format("{}", image_->header.version);
    row.virtual_size = image_->header.size;
    row.file_size = image_->file_size;
    row.cluster_size = image_->walkable ? image_->geometry.cluster_size : 0;
    row.allocated = StoredBytes(*image_->source);
    return row;
  }
  std::vector<FieldRow> Fields() const override { return MakeFields(*image_); }
  std::vector<std::string> Layers() const override { return layers_; }
  std::vector<SnapshotRow> Snapshots() const override {
    std::vector<SnapshotRow> rows;
    for (size_t i = 0; i < image_->snapshots.entries.size(); ++i) {
      const Snapshot& s = image_->snapshots.entries[i];
      rows.push_back({layers_[i + 1], ValidUtf8(s.name), s.host_offset, s.l1_table_offset,
                      s.l1_size, image_->LayerSize(i + 1), s.vm_state_size(), s.date_sec,
                      s.date_nsec, s.vm_clock_nsec});
    }
    return rows;
  }
  std::vector<BitmapRow> Bitmaps() const override {
    std::vector<BitmapRow> rows;
    for (const Bitmap& b : image_->bitmaps.entries) {
      rows.push_back({ValidUtf8(b.name), b.host_offset,
                      b.granularity_bits < 64 ? uint64_t{1} << b.granularity_bits : 0,
                      b.table_offset, b.table_size, b.in_use(), (b.flags & kBitmapAuto) != 0,
                      image_->header.Autoclear(kAutoclearBitmaps)});
    }
    return rows;
  }
  std::unique_ptr<RowCursor<BitmapRangeRow>> BitmapRanges() const override {
    return std::make_unique<BitmapRangeCursor>(*image_);
  }
  std::vector<LinkRow> Links() const override {
    std::vector<LinkRow> rows;
    if (image_->backing_name) {
      rows.push_back({"backing", *image_->backing_name, image_->backing_format.value_or(""),
                      image_->header.backing_file_offset, image_->header.backing_file_size});
    }
    if (const Extension* e = image_->extensions.Find(kExtDataFile)) {
      rows.push_back({"data-file", *image_->data_file_name, "raw", e->offset + 8, e->data.size()});
    }
    return rows;
  }
  std::vector<StructurePiece> Structures() const override {
    std::vector<StructurePiece> pieces;
    if (!image_->walkable) {
      return {{"header", MakeHostRange(0, std::min<uint64_t>(image_->file_size, 112))}};
    }
    ForEachMeta(*image_, [&](const MetaRegion& r) { pieces.push_back({r.Structure(), r.host}); });
    for (size_t layer = 0; layer < image_->LayerCount(); ++layer) {
      L1Window window(*image_, layer);
      for (uint64_t i = 0; i < image_->L1Of(layer).entries; ++i) {
        if (uint64_t table = TableOffset(*image_, window.At(i)); table != 0) {
          pieces.push_back(
              {image_->TableName(layer, i), MakeHostRange(table, image_->geometry.cluster_size)});
        }
      }
    }
    return pieces;
  }
  std::unique_ptr<RowCursor<MappingRow>> Mappings(const RowQuery& query) const override {
    if (!image_->walkable) return nullptr;
    return MakeMappingCursor(*image_, layers_, query);
  }
  std::unique_ptr<RowCursor<RegionRow>> Regions(const RowQuery& query) const override {
    if (!image_->walkable) return nullptr;
    return std::make_unique<RegionCursor>(*image_, layers_, query);
  }

 private:
  std::shared_ptr<const qcow2::Image> image_;
  std::string path_;
  std::vector<std::string> layers_;
};

}  // namespace

std::unique_ptr<ImageRows> MakeRows(std::shared_ptr<const qcow2::Image> image, std::string path) {
  return std::make_unique<Rows>(std::move(image), std::move(path));
}

}  // namespace imgfsck::qcow2
