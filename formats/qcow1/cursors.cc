// SPDX-License-Identifier: Apache-2.0
// Streams the mapping and the regions of an image; holds one L2 table and one batch in memory.
#include <algorithm>

#include "base/text.h"
#include "formats/qcow1/walk.h"

namespace imgfsck::qcow1 {
namespace {

constexpr size_t kBatch = 4096;  // rows

MappingRow RowOf(const Image& image, const Extent& extent) {
  MappingRow row;
  row.layer = kActiveLayer;
  row.guest_offset = extent.guest_offset;
  row.length = extent.length;
  row.state = extent.state;
  row.flags = extent.flags;
  if (extent.state == MappingState::kData) {
    row.host_offset = extent.entry.offset(image.geometry);
    row.host_length = extent.length;
  } else if (extent.state == MappingState::kCompressed) {
    row.host_offset = extent.entry.offset(image.geometry);
    row.host_length = extent.entry.length(image.geometry);
  }
  return row;
}

bool Continues(const MappingRow& row, const MappingRow& next) {
  if (row.state != next.state || row.flags != next.flags ||
      row.guest_offset + row.length != next.guest_offset) {
    return false;
  }
  if (row.state == MappingState::kUnallocated) return true;
  return row.state == MappingState::kData && *row.host_offset + row.length == *next.host_offset;
}

class Mappings : public RowCursor<MappingRow> {
 public:
  Mappings(const Image& image, const RowQuery& query)
      : image_(image),
        per_cluster_(query.per_cluster),
        walker_(image, query.guest_begin,
                query.layer && *query.layer != kActiveLayer ? 0 : query.guest_end) {}

  Status NextBatch(std::vector<MappingRow>* batch) override {
    batch->clear();
    while (batch->size() < kBatch) {
      Extent extent;
      IMG_ASSIGN_OR_RETURN(bool more, walker_.Next(&extent));
      if (!more) break;
      Append(RowOf(image_, extent), batch);
    }
    if (batch->size() < kBatch && pending_) {
      batch->push_back(*pending_);
      pending_.reset();
    }
    return Ok();
  }

 private:
  void Append(const MappingRow& next, std::vector<MappingRow>* batch) {
    if (pending_ && !per_cluster_ && Continues(*pending_, next)) {
      pending_->length += next.length;
      if (pending_->host_length) *pending_->host_length += next.length;
      return;
    }
    if (pending_) batch->push_back(*pending_);
    pending_ = next;
  }

  const Image& image_;
  bool per_cluster_;
  ExtentWalker walker_;
  std::optional<MappingRow> pending_;
};

class Regions : public RowCursor<RegionRow> {
 public:
  Regions(const Image& image, const RowQuery& query)
      : image_(image), query_(query), mappings_(image, query) {
    for (const TableUse& table : TablesByOffset(image)) {
      if (!tables_.empty() && tables_.back().offset == table.offset) continue;
      tables_.push_back(table);
    }
  }

  Status NextBatch(std::vector<RegionRow>* batch) override {
    batch->clear();
    if (!fixed_done_) Fixed(batch);
    fixed_done_ = true;
    while (batch->size() < kBatch && next_table_ < tables_.size()) {
      const TableUse& table = tables_[next_table_++];
      Add(batch, table.offset, image_.geometry.l2_bytes, "l2",
          image_.GuestOf(image_.l1[table.slot]).offset.value);
    }
    std::vector<MappingRow> mapped;
    while (batch->empty()) {
      IMG_RETURN_IF_ERROR(mappings_.NextBatch(&mapped));
      if (mapped.empty()) break;
      for (const MappingRow& row : mapped) {
        if (!row.host_offset || (row.flags & kMappingDamaged) != 0) continue;
        Add(batch, *row.host_offset, *row.host_length,
            row.state == MappingState::kCompressed ? "compressed" : "data", row.guest_offset);
      }
    }
    return Ok();
  }

 private:
  void Fixed(std::vector<RegionRow>* batch) const {
    const Header& h = image_.header;
    Add(batch, 0, kHeaderLength, "header", {});
    if (image_.xen) Add(batch, kXenHeaderOffset, kXenHeaderLength, "header-extension", {});
    std::vector<RegionRow> rest;
    if (image_.backing_name) {
      Add(&rest, h.backing_file_offset, h.backing_file_size, "backing-name", {});
    }
    if (image_.walkable && image_.l1_clear) {
      Add(&rest, h.l1_table_offset, image_.geometry.l1_bytes(), "l1", {});
    }
    std::sort(rest.begin(), rest.end(),
              [](const RegionRow& a, const RegionRow& b) { return a.host_offset < b.host_offset; });
    batch->insert(batch->end(), rest.begin(), rest.end());
  }

  void Add(std::vector<RegionRow>* batch, uint64_t offset, uint64_t length, std::string_view kind,
           std::optional<uint64_t> guest) const {
    if (offset >= query_.host_end || SaturatingAdd(offset, length) <= query_.host_begin) return;
    std::string owner = guest ? std::string(kActiveLayer) : std::string();
    batch->push_back({offset, length, kind, std::move(owner), guest});
  }

  const Image& image_;
  RowQuery query_;
  Mappings mappings_;
  std::vector<TableUse> tables_;
  size_t next_table_ = 0;
  bool fixed_done_ = false;
};

}  // namespace

std::unique_ptr<RowCursor<MappingRow>> MappingCursor(const Image& image, const RowQuery& query) {
  return std::make_unique<Mappings>(image, query);
}

std::unique_ptr<RowCursor<RegionRow>> RegionCursor(const Image& image, const RowQuery& query) {
  return std::make_unique<Regions>(image, query);
}

}  // namespace imgfsck::qcow1
