// SPDX-License-Identifier: Apache-2.0
#include "formats/vhd/mapping.h"

#include <algorithm>

#include "base/checked.h"
#include "base/interrupt.h"
#include "formats/common/tolerant.h"
#include "formats/vhd/bat.h"

namespace imgfsck::vhd {
namespace {

constexpr size_t kRowsABatch = 4096;

uint32_t FlagsOf(const Image& image, uint64_t start) {
  uint32_t flags = 0;
  if (!RangeFits(start, image.BlockLength(), image.file_size)) flags |= kMappingPastEnd;
  if (!image.ClearOfMetadata(start)) flags |= kMappingDamaged;
  return flags;
}

class SparseMappings : public RowCursor<MappingRow> {
 public:
  SparseMappings(const Image& image, const RowQuery& query, Reader reader)
      : image_(image),
        query_(query),
        ignore_bitmaps_(reader == Reader::kQemu && image.kind == Kind::kDynamic),
        size_(std::min(image.VirtualSize(), query.guest_end)),
        at_(AlignDown(std::min(query.guest_begin, size_), image.block_size)),
        reader_(image, at_ / image.block_size, DivRoundUp(size_, image.block_size)) {
    if (query.layer && *query.layer != kActiveLayer) at_ = size_;
  }

  Status NextBatch(std::vector<MappingRow>* batch) override {
    IMG_RETURN_IF_ERROR(CheckStop());
    batch->clear();
    while (batch->size() < kRowsABatch && at_ < size_) NextBlock(batch);
    if (at_ >= size_ && pending_.length > 0) {
      batch->push_back(pending_);
      pending_.length = 0;
    }
    return Ok();
  }

 private:
  // What the table says of the block at at_; `*zeros` entries (0: just this one) are the same.
  uint32_t Entry(uint64_t* zeros) {
    uint64_t index = at_ / image_.block_size;
    *zeros = 0;
    while (index >= run_.first + std::max<uint64_t>(run_.values.size(), run_.zeros)) {
      if (!reader_.Next(&run_)) return kUnallocated;
    }
    if (run_.values.empty()) *zeros = run_.first + run_.zeros - index;
    return run_.values.empty() ? 0 : run_.values[index - run_.first];
  }

  void NextBlock(std::vector<MappingRow>* batch) {
    uint64_t length = std::min(image_.block_size, size_ - at_);
    uint64_t zeros = 0;
    if (at_ / image_.block_size >= image_.bat_stored) {
      length = size_ - at_;  // there is no table any more
      Emit({kActiveLayer, at_, length, MappingState::kUnallocated, {}, {}, 0}, batch);
    } else if (uint32_t entry = Entry(&zeros); entry == kUnallocated) {
      Emit({kActiveLayer, at_, length, MappingState::kUnallocated, {}, {}, 0}, batch);
    } else if (entry == 0) {
      length = std::min(std::max<uint64_t>(zeros, 1) * image_.block_size, size_ - at_);
      Emit({kActiveLayer, at_, length, MappingState::kData, {}, {}, kMappingDamaged}, batch);
    } else {
      AllocatedBlock(uint64_t{entry} * kSectorSize, length, batch);
    }
    at_ += length;
  }

  void AllocatedBlock(uint64_t start, uint64_t length, std::vector<MappingRow>* batch) {
    bitmap_.resize(image_.bitmap_bytes);
    if (!ignore_bitmaps_) ReadTolerant(*image_.source, start, bitmap_, &unreadable_);
    uint32_t flags = FlagsOf(image_, start);
    uint64_t data = start + image_.bitmap_bytes;
    uint64_t sectors = length / kSectorSize;
    bool no_bitmap = bitmap_.empty() || ignore_bitmaps_;
    for (uint64_t from = 0; from < sectors;) {
      uint64_t to = no_bitmap ? sectors : BitRunEnd(bitmap_, from, sectors);
      bool written = no_bitmap || BitAt(bitmap_, from);
      auto state = written                              ? MappingState::kData
                   : image_.kind == Kind::kDifferencing ? MappingState::kUnallocated
                                                        : MappingState::kZero;
      MappingRow row{
          kActiveLayer, at_ + from * kSectorSize, (to - from) * kSectorSize, state, {}, {}, flags};
      if (state != MappingState::kUnallocated) row.host_offset = data + from * kSectorSize;
      Emit(row, batch);
      from = to;
    }
  }

  // Joins rows that continue each other.
  void Emit(const MappingRow& row, std::vector<MappingRow>* batch) {
    bool joins = pending_.length > 0 && !query_.per_cluster && pending_.state == row.state &&
                 pending_.flags == row.flags &&
                 pending_.host_offset.has_value() == row.host_offset.has_value() &&
                 (!row.host_offset || *pending_.host_offset + pending_.length == *row.host_offset);
    if (joins) {
      pending_.length += row.length;
      return;
    }
    if (pending_.length > 0) batch->push_back(pending_);
    pending_ = row;
  }

  const Image& image_;
  RowQuery query_;
  bool ignore_bitmaps_;
  uint64_t size_, at_;
  BatReader reader_;
  BatReader::Run run_;
  ByteVector bitmap_;
  std::vector<HostRange> unreadable_;
  MappingRow pending_;
};

// A fixed disk: its bytes as they stand, then whatever the file lacks.
class FixedMappings : public RowCursor<MappingRow> {
 public:
  FixedMappings(const Image& image, const RowQuery& query) {
    if (query.layer && *query.layer != kActiveLayer) return;
    uint64_t size = image.VirtualSize();
    uint64_t stored = std::min(size, image.DataEnd());
    if (stored > 0) rows_.push_back({kActiveLayer, 0, stored, MappingState::kData, 0, {}, 0});
    if (size > stored) {
      rows_.push_back(
          {kActiveLayer, stored, size - stored, MappingState::kData, stored, {}, kMappingPastEnd});
    }
  }
  Status NextBatch(std::vector<MappingRow>* batch) override {
    *batch = std::move(rows_);
    rows_.clear();
    return Ok();
  }

 private:
  std::vector<MappingRow> rows_;
};

class Regions : public RowCursor<RegionRow> {
 public:
  Regions(const Image& image, const RowQuery& query)
      : image_(image), query_(query), reader_(image, 0, image.sparse() ? image.bat_entries : 0) {
    for (const MetaRegion& r : image.regions)
      first_.push_back({r.offset, r.length, r.kind, {}, {}});
    if (!image.sparse()) {
      uint64_t stored = std::min(image.VirtualSize(), image.DataEnd());
      if (stored > 0) first_.push_back({0, stored, "data", std::string(kActiveLayer), 0});
    }
    if (image.trailing.state != SlotState::kAbsent) {
      first_.push_back({image.trailing.offset, image.trailing.length, "footer", {}, {}});
    }
    std::erase_if(first_, [&](const RegionRow& row) { return !Wanted(row); });
  }

  Status NextBatch(std::vector<RegionRow>* batch) override {
    IMG_RETURN_IF_ERROR(CheckStop());
    *batch = std::move(first_);
    first_.clear();
    while (batch->size() < kRowsABatch) {
      uint64_t count = std::max<uint64_t>(run_.values.size(), run_.zeros);
      if (at_ >= run_.first + count) {
        if (!reader_.Next(&run_)) return Ok();
        at_ = run_.first;
        continue;
      }
      if (run_.values.empty()) {
        at_ += count;  // entries that are zero claim nothing but the footer copy
        continue;
      }
      uint32_t entry = run_.values[at_ - run_.first];
      if (entry != kUnallocated && entry != 0) {
        AddBlock(at_, uint64_t{entry} * kSectorSize, batch);
      }
      ++at_;
    }
    return Ok();
  }

 private:
  bool Wanted(const RegionRow& row) const {
    return row.host_offset < query_.host_end && row.host_offset + row.length > query_.host_begin &&
           (!row.guest_offset ||
            (*row.guest_offset<query_.guest_end&& * row.guest_offset + row.length> query_
                  .guest_begin));
  }
  void AddBlock(uint64_t index, uint64_t start, std::vector<RegionRow>* batch) {
    uint64_t guest = index * image_.block_size;
    RegionRow bitmap{start, image_.bitmap_bytes, "block-bitmap", std::string(kActiveLayer), guest};
    RegionRow data{start + image_.bitmap_bytes, image_.block_size, "data",
                   std::string(kActiveLayer), guest};
    if (bitmap.length > 0 && Wanted(bitmap)) batch->push_back(std::move(bitmap));
    if (Wanted(data)) batch->push_back(std::move(data));
  }

  const Image& image_;
  RowQuery query_;
  std::vector<RegionRow> first_;
  BatReader reader_;
  BatReader::Run run_;
  uint64_t at_ = 0;
};

}  // namespace

uint64_t BitRunEnd(Bytes bitmap, uint64_t from, uint64_t to) {
  bool on = BitAt(bitmap, from);
  uint8_t whole = on ? 0xFF : 0;
  uint64_t at = from + 1;
  while (at < to) {
    if (at % 8 == 0 && at + 8 <= to && bitmap[at / 8] == whole) {
      at += 8;
    } else if (BitAt(bitmap, at) == on) {
      ++at;
    } else {
      break;
    }
  }
  return at;
}

std::unique_ptr<RowCursor<MappingRow>> MappingsOf(const Image& image, const RowQuery& query,
                                                  Reader reader) {
  if (image.sparse()) return std::make_unique<SparseMappings>(image, query, reader);
  return std::make_unique<FixedMappings>(image, query);
}

std::unique_ptr<RowCursor<RegionRow>> RegionsOf(const Image& image, const RowQuery& query) {
  return std::make_unique<Regions>(image, query);
}

}  // namespace imgfsck::vhd
