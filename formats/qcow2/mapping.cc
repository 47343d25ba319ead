// SPDX-License-Identifier: Apache-2.0
#include "formats/qcow2/mapping.h"

#include <algorithm>

#include "base/interrupt.h"

namespace imgfsck::qcow2 {

uint64_t L1Window::At(uint64_t index) {
  if (index >= l1_.entries) return 0;
  if (index < begin_ || index - begin_ >= entries_.size()) {
    begin_ = AlignDown(index, kWindow);
    entries_.resize(std::min(kWindow, l1_.entries - begin_));
    ByteVector raw(entries_.size() * 8);
    std::vector<HostRange> bad;
    ReadTolerant(*image_.source, l1_.offset + begin_ * 8, raw, &bad);
    for (size_t i = 0; i < entries_.size(); ++i) entries_[i] = LoadBe<uint64_t>(&raw[8 * i]);
  }
  return entries_[index - begin_];
}

uint64_t TableOffset(const Image& image, uint64_t l1_entry) {
  uint64_t offset = l1_entry & kOffsetMask;
  return IsAligned(offset, image.geometry.cluster_size) && offset < image.file_size ? offset : 0;
}

namespace {

class MappingCursor : public RowCursor<MappingRow> {
 public:
  MappingCursor(const Image& image, const std::vector<std::string>& names, const RowQuery& query)
      : image_(image),
        g_(image.geometry),
        names_(names),
        query_(query),
        common_flags_((image.header.crypt_method != kCryptNone ? kMappingEncrypted : 0) |
                      (image.has_data_file() ? kMappingDataFile : 0)) {}

  Status NextBatch(std::vector<MappingRow>* batch) override {
    batch->clear();
    batch_ = batch;
    while (batch->size() < kBatch && layer_ < image_.LayerCount()) {
      IMG_RETURN_IF_ERROR(CheckStop());
      if (!StepColumn()) {
        Flush();
        window_.reset();
        ++layer_;
      }
    }
    return Ok();
  }

 private:
  static constexpr size_t kBatch = 4096;

  // Maps one L1 entry's range (or a run of empty ones); false at the layer's end.
  bool StepColumn() {
    if (query_.layer && *query_.layer != names_[layer_]) return false;
    uint64_t size = std::min(image_.LayerSize(layer_), query_.guest_end);
    if (!window_) {
      window_.emplace(image_, layer_);
      column_ = query_.guest_begin / g_.l2_span;
    }
    if (column_ >= DivRoundUp(size, g_.l2_span)) return false;
    if (column_ >= image_.L1Of(layer_).entries) {  // nothing mapped from here on
      // A table that is missing or too short is damage: no reader returns these bytes.
      bool lost = image_.L1Of(layer_).entries < image_.L1Min(layer_);
      Unallocated(column_ * g_.l2_span, size, lost ? kMappingDamaged : 0);
      column_ = DivRoundUp(size, g_.l2_span);
      return true;
    }
    uint64_t table = TableOffset(image_, window_->At(column_));
    uint64_t begin = column_ * g_.l2_span, end = std::min(begin + g_.l2_span, size);
    bool damaged = window_->At(column_) != 0 && table == 0;
    if (table == 0) {
      Unallocated(begin, end, damaged ? kMappingDamaged : 0);
    } else {
      MapTable(table, begin, end);
    }
    ++column_;
    return true;
  }

  void MapTable(uint64_t table, uint64_t begin, uint64_t end) {
    // Only the part of the table that the query asks for.
    uint64_t from =
        query_.guest_begin > begin ? (query_.guest_begin - begin) >> g_.cluster_bits : 0;
    uint64_t to = DivRoundUp(end - begin, g_.cluster_size);
    if (from >= to) return;
    bytes_.resize((to - from) * g_.l2_entry_size);
    std::vector<HostRange> bad;
    ReadTolerant(*image_.source, table + from * g_.l2_entry_size, bytes_, &bad);
    for (uint64_t i = from; i < to; ++i) {
      uint64_t guest = begin + (i << g_.cluster_bits);
      MapEntry(LoadEntry(g_, bytes_, i - from), guest, std::min(guest + g_.cluster_size, end));
    }
  }

  void MapEntry(const Entry& entry, uint64_t begin, uint64_t end) {
    if (entry.compressed()) {
      CompressedSpan span = DecodeCompressed(g_, entry.descriptor);
      uint32_t past = span.offset >= image_.file_size ? kMappingPastEnd : 0;
      Emit({names_[layer_], begin, end - begin, MappingState::kCompressed, span.offset, span.length,
            past});
      return;
    }
    uint64_t host = entry.host();
    bool allocated = host != 0 || (image_.has_data_file() && entry.copied());
    uint32_t flags = allocated ? common_flags_ : 0;
    if (entry.copied()) flags |= kMappingCopied;
    if ((entry.descriptor & kL2Reserved) != 0 || !IsAligned(host, g_.cluster_size)) {
      flags |= kMappingDamaged;
    }
    // Nothing reads the data file at another place than the guest's own.
    if (allocated && image_.has_data_file() && host != begin) flags |= kMappingDamaged;
    if (allocated && !image_.has_data_file() && host >= image_.file_size) flags |= kMappingPastEnd;
    if (g_.extended_l2) {
      MapSubclusters(entry, begin, end, allocated, flags);
      return;
    }
    MappingState state = entry.zero_flag() ? MappingState::kZero
                         : allocated       ? MappingState::kData
                                           : MappingState::kUnallocated;
    Emit({names_[layer_], begin, end - begin, state, allocated ? std::optional(host) : std::nullopt,
          std::nullopt, flags});
  }

  void MapSubclusters(const Entry& entry, uint64_t begin, uint64_t end, bool allocated,
                      uint32_t flags) {
    uint64_t size = g_.cluster_size / kSubclusters;
    for (unsigned i = 0; i < kSubclusters && begin + i * size < end; ++i) {
      bool alloc = entry.alloc_bits() >> i & 1, zero = entry.zero_bits() >> i & 1;
      MappingState state = zero                 ? MappingState::kZero
                           : alloc && allocated ? MappingState::kData
                                                : MappingState::kUnallocated;
      uint64_t at = begin + i * size;
      Emit({names_[layer_], at, std::min(size, end - at), state,
            allocated ? std::optional(entry.host() + i * size) : std::nullopt, std::nullopt,
            flags | (alloc && (zero || !allocated) ? kMappingDamaged : 0)});
    }
  }

  void Unallocated(uint64_t begin, uint64_t end, uint32_t flags = 0) {
    begin = std::max(begin, query_.guest_begin);
    if (begin >= end) return;
    Emit({names_[layer_], begin, end - begin, MappingState::kUnallocated, std::nullopt,
          std::nullopt, flags});
  }

  bool Continues(const MappingRow& last, const MappingRow& next) const {
    if (last.state != next.state || last.flags != next.flags ||
        last.guest_offset + last.length != next.guest_offset ||
        last.state == MappingState::kCompressed ||
        last.host_offset.has_value() != next.host_offset.has_value()) {
      return false;
    }
    if (query_.per_cluster && last.host_offset) return false;
    return !last.host_offset || *last.host_offset + last.length == *next.host_offset;
  }

  void Emit(const MappingRow& row) {
    if (pending_ && Continues(*pending_, row)) {
      pending_->length += row.length;
      return;
    }
    Flush();
    pending_ = row;
  }
  void Flush() {
    if (pending_) batch_->push_back(*pending_);
    pending_.reset();
  }

  const Image& image_;
  const Geometry& g_;
  const std::vector<std::string>& names_;
  RowQuery query_;
  uint32_t common_flags_;
  size_t layer_ = 0;
  uint64_t column_ = 0;
  std::optional<L1Window> window_;
  ByteVector bytes_;
  std::optional<MappingRow> pending_;
  std::vector<MappingRow>* batch_ = nullptr;
};

}  // namespace

std::unique_ptr<RowCursor<MappingRow>> MakeMappingCursor(
    const Image& image, const std::vector<std::string>& layer_names, const RowQuery& query) {
  return std::make_unique<MappingCursor>(image, layer_names, query);
}

}  // namespace imgfsck::qcow2
