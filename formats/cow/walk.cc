// SPDX-License-Identifier: Apache-2.0
#include "formats/cow/walk.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "formats/common/stored.h"

namespace imgfsck::cow {
namespace {

constexpr size_t kBatch = 4096;  // rows

class Mappings : public RowCursor<MappingRow> {
 public:
  Mappings(const Image& image, const RowQuery& query)
      : image_(image),
        per_sector_(query.per_cluster),
        reader_(*image.source, image.geometry, query.guest_begin / image.geometry.sector_size,
                query.layer && *query.layer != kActiveLayer
                    ? 0
                    : DivRoundUp(query.guest_end, image.geometry.sector_size)) {}

  Status NextBatch(std::vector<MappingRow>* batch) override {
    batch->clear();
    while (batch->size() < kBatch) {
      if (run_.first >= run_.last) {
        IMG_ASSIGN_OR_RETURN(bool more, reader_.Next(&run_));
        if (!more) return Ok();
      }
      uint64_t last = per_sector_ ? run_.first + 1 : CutAtEof();
      batch->push_back(RowOf(run_.first, last));
      run_.first = last;
    }
    return Ok();
  }

 private:
  // Stored sectors that the file has and those it lacks become two rows.
  uint64_t CutAtEof() const {
    uint64_t data = image_.geometry.data_offset;
    if (!run_.stored || image_.file_size <= data) return run_.last;
    uint64_t whole = (image_.file_size - data) / image_.geometry.sector_size;
    return whole > run_.first && whole < run_.last ? whole : run_.last;
  }

  MappingRow RowOf(uint64_t first, uint64_t last) const {
    MappingRow row;
    row.layer = kActiveLayer;
    GuestRange guest = image_.GuestOf(first, last);
    row.guest_offset = guest.offset.value;
    row.length = guest.length;
    if (!run_.stored) return row;
    HostRange host = image_.HostOf(first, last);
    row.state = MappingState::kData;
    row.host_offset = host.offset.value;
    row.host_length = host.length;
    if (!RangeFits(host.offset.value, host.length, image_.file_size)) row.flags = kMappingPastEnd;
    return row;
  }

  const Image& image_;
  bool per_sector_;
  RunReader reader_;
  Run run_;
};

class Regions : public RowCursor<RegionRow> {
 public:
  Regions(const Image& image, const RowQuery& query)
      : image_(image), query_(query), mappings_(image, query) {}

  Status NextBatch(std::vector<RegionRow>* batch) override {
    batch->clear();
    if (!fixed_done_) {
      fixed_done_ = true;
      Add(batch, 0, image_.header.spec().header_length, "header", {});
      if (image_.walkable) {
        Add(batch, image_.geometry.bitmap_offset, image_.geometry.bitmap_bytes, "cow-bitmap", {});
      }
    }
    std::vector<MappingRow> rows;
    while (batch->empty() && image_.walkable) {
      IMG_RETURN_IF_ERROR(mappings_.NextBatch(&rows));
      if (rows.empty()) break;
      for (const MappingRow& row : rows) {
        if (row.host_offset) {
          Add(batch, *row.host_offset, *row.host_length, "data", row.guest_offset);
        }
      }
    }
    return Ok();
  }

 private:
  void Add(std::vector<RegionRow>* batch, uint64_t offset, uint64_t length, std::string_view kind,
           std::optional<uint64_t> guest) const {
    if (offset >= query_.host_end || offset + length <= query_.host_begin) return;
    batch->push_back({offset, length, kind, guest ? std::string(kActiveLayer) : "", guest});
  }

  const Image& image_;
  RowQuery query_;
  Mappings mappings_;
  bool fixed_done_ = false;
};

uint64_t ValueOf(const Header& h, std::string_view field) {
  if (field == "version") return h.version;
  if (field == "mtime") return h.mtime;
  if (field == "size") return h.size;
  if (field == "sectorsize") return h.sectorsize;
  return field == "alignment" ? h.alignment : h.cow_format;
}

std::string MeaningOf(const Header& h, std::string_view field) {
  if (field == "version") {
    return fmt::format("layout {}{}", h.spec().name, h.little_endian ? ", little-endian" : "");
  }
  if (field == "backing_file") return Printable(h.path);
  if (field == "size") return HumanSize(h.size);
  if (field == "cow_format") return h.cow_format == 0 ? "bitmap" : "unknown";
  return {};
}

class Rows : public ImageRows {
 public:
  Rows(std::unique_ptr<imgfsck::cow::Image> image, std::string path)
      : image_(std::move(image)), path_(std::move(path)) {}

  ImageRow Image() const override {
    const Geometry& g = image_->geometry;
    return {path_,
            "cow",
            std::to_string(image_->header.version),
            g.valid ? g.virtual_size : image_->header.size,
            image_->file_size,
            g.valid ? g.sector_size : 0,
            StoredBytes(*image_->source)};
  }

  std::vector<FieldRow> Fields() const override {
    std::vector<FieldRow> rows;
    for (const FieldPlace& field : FieldsOf(image_->header.spec())) {
      if (!RangeFits(field.offset, field.length, image_->head.size())) continue;
      FieldRow row{"header",
                   std::string(field.name),
                   field.offset,
                   field.length,
                   {},
                   {},
                   MeaningOf(image_->header, field.name)};
      if (field.length <= 64) {
        row.raw = HexEncode(Bytes(image_->head).subspan(field.offset, field.length));
        uint64_t value = field.name == "magic" ? BeAt<uint32_t>(image_->head, 0)
                                               : ValueOf(image_->header, field.name);
        if (value >> 63 == 0) row.value = value;
      }
      rows.push_back(std::move(row));
    }
    return rows;
  }

  std::vector<LinkRow> Links() const override {
    const Header& h = image_->header;
    if (h.path.empty()) return {};
    // User-Mode Linux reads raw bytes, whatever they are.
    const char* format = h.spec().qemu ? "" : "raw";
    return {{"backing", h.path, format, h.spec().path_offset, h.path.size()}};
  }

  std::vector<StructurePiece> Structures() const override {
    std::vector<StructurePiece> pieces{
        {"header", MakeHostRange(0, image_->header.spec().header_length)}};
    if (image_->walkable) {
      const Geometry& g = image_->geometry;
      pieces.push_back({"bitmap", MakeHostRange(g.bitmap_offset, g.bitmap_bytes)});
    }
    return pieces;
  }

  std::unique_ptr<RowCursor<MappingRow>> Mappings(const RowQuery& query) const override {
    return std::make_unique<cow::Mappings>(*image_, query);
  }
  std::unique_ptr<RowCursor<RegionRow>> Regions(const RowQuery& query) const override {
    return std::make_unique<cow::Regions>(*image_, query);
  }

 private:
  std::unique_ptr<imgfsck::cow::Image> image_;
  std::string path_;
};

}  // namespace

std::unique_ptr<ImageRows> MakeRows(std::unique_ptr<Image> image, std::string path) {
  return std::make_unique<Rows>(std::move(image), std::move(path));
}

}  // namespace imgfsck::cow
