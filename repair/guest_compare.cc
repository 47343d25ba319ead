// SPDX-License-Identifier: Apache-2.0
#include "repair/guest_compare.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <utility>

#include "base/checked.h"
#include "base/interrupt.h"
#include "repair/mapping_stream.h"

namespace imgfsck {
namespace {

constexpr uint64_t kGuestCompareChunk = 256 * kKiB;  // bytes compared at a time

bool IsEmpty(MappingState state) {
  return state == MappingState::kUnallocated || state == MappingState::kZero;
}

// The names that stand for what unallocated ranges read.
std::vector<std::string> BackingNames(const ImageRows& rows) {
  std::vector<std::string> names;
  for (LinkRow& link : rows.Links()) {
    if (link.kind != "data-file") names.push_back(std::move(link.name));
  }
  return names;
}

// One side's strict driver for one layer, opened when first needed.
class LayerReader {
 public:
  LayerReader(const ImageView& view, std::string layer, const CheckOptions& options)
      : view_(view), layer_(std::move(layer)), options_(options) {}

  // kUnsupported where nobody can tell; any other error: the bytes cannot be read.
  Status Read(uint64_t offset, MutableBytes buffer) {
    if (!opened_) Open();
    if (!driver_) return Error(driver_.error());
    return (*driver_)->Read(offset, buffer);
  }

 private:
  void Open() {
    opened_ = true;
    const Format& format = *view_.report.format;
    if (format.open == nullptr) return;
    OpenOptions open;
    open.passphrase = options_.passphrase;
    open.size_policy = options_.size_policy;
    open.path = options_.path;
    if (layer_ != kActiveLayer) open.snapshot = layer_;
    driver_ = format.open(view_.bytes, nullptr, open);
    if (!driver_) return;
    (*driver_)->SetBackingReader([](uint64_t, MutableBytes) -> Status {
      return Error{ErrorCode::kUnsupported, "backing files are not looked at", {}};
    });
  }

  const ImageView& view_;
  std::string layer_;
  const CheckOptions& options_;
  bool opened_ = false;
  Result<std::unique_ptr<Driver>> driver_ =
      Error{ErrorCode::kUnsupported, "this format cannot be read", {}};
};

class Comparison {
 public:
  Comparison(const ImageView& before, const ImageView& after, RangeSet patched,
             const CheckOptions& options)
      : before_(before), after_(after), patched_(std::move(patched)), options_(options) {}

  Result<std::vector<LayerRange>> Run() {
    const ImageRows* old_rows = before_.report.rows.get();
    const ImageRows* new_rows = after_.report.rows.get();
    if (old_rows == nullptr || new_rows == nullptr) return std::move(changed_);
    const auto names = BackingNames(*old_rows);
    has_backing_ = !names.empty();
    same_backing_ = names == BackingNames(*new_rows);
    by_place_ = StoredByPlace(*old_rows) || StoredByPlace(*new_rows);
    const auto pairs = PairLayers(old_rows->Layers(), new_rows->Layers());
    for (const auto& [old_layer, new_layer] : pairs) {
      IMG_RETURN_IF_ERROR(CompareLayers(old_layer, new_layer));
    }
    return std::move(changed_);
  }

 private:
  // A layer of one side. `part`: which of the layers of that name.
  struct LayerRef {
    std::string name;
    uint64_t part = 0;
    friend auto operator<=>(const LayerRef&, const LayerRef&) = default;
  };
  using Pairs = std::vector<std::pair<LayerRef, LayerRef>>;

  static std::vector<LayerRef> Numbered(const std::vector<std::string>& names) {
    std::map<std::string, uint64_t> seen;
    std::vector<LayerRef> refs;
    for (const std::string& name : names) refs.push_back({name, seen[name]++});
    return refs;
  }

  // By name; a snapshot whose id a repair changed, by its position.
  static Pairs PairLayers(const std::vector<std::string>& old_layers,
                          const std::vector<std::string>& new_layers) {
    const auto old_refs = Numbered(old_layers), new_refs = Numbered(new_layers);
    const std::set<LayerRef> old_set(old_refs.begin(), old_refs.end());
    const std::set<LayerRef> new_set(new_refs.begin(), new_refs.end());
    Pairs pairs;
    for (size_t i = 0; i < old_refs.size(); ++i) {
      const bool renamed =
          !new_set.contains(old_refs[i]) && i < new_refs.size() && !old_set.contains(new_refs[i]);
      pairs.emplace_back(old_refs[i], renamed ? new_refs[i] : old_refs[i]);
    }
    return pairs;
  }

  // LUKS in qcow2: the position in the file is part of the encryption.
  static bool StoredByPlace(const ImageRows& rows) {
    for (const StructurePiece& piece : rows.Structures()) {
      if (piece.name == "luks") return true;
      if (piece.name.starts_with("l2")) break;  // metadata of the whole image comes first
    }
    return false;
  }

  Status CompareLayers(const LayerRef& old_layer, const LayerRef& new_layer) {
    MappingStream old_stream(*before_.report.rows, old_layer.name, old_layer.part);
    MappingStream new_stream(*after_.report.rows, new_layer.name, new_layer.part);
    LayerReader old_reader(before_, old_layer.name, options_);
    LayerReader new_reader(after_, new_layer.name, options_);
    layer_ = old_layer.name;
    old_reader_ = &old_reader;
    new_reader_ = &new_reader;
    for (;;) {
      IMG_RETURN_IF_ERROR(CheckStop());
      IMG_ASSIGN_OR_RETURN(const MappingRow* old_row, old_stream.Current());
      if (old_row == nullptr) return Ok();
      IMG_ASSIGN_OR_RETURN(const MappingRow* new_row, new_stream.Current());
      const uint64_t at = old_row->guest_offset;
      const bool gone = new_row == nullptr;
      if (!gone && new_row->guest_offset < at) {
        new_stream.Consume(std::min(new_row->length, at - new_row->guest_offset));
        continue;
      }
      uint64_t length = old_row->length;
      MappingRow other{};  // a gap: unallocated
      if (gone || new_row->guest_offset > at) {
        if (!gone) length = std::min(length, new_row->guest_offset - at);
        other.guest_offset = at;
        other.length = length;
      } else {
        length = std::min(length, new_row->length);
        other = *new_row;
      }
      IMG_RETURN_IF_ERROR(CompareRun(*old_row, other, length, gone));
      old_stream.Consume(length);
      if (!gone && new_row->guest_offset == at) new_stream.Consume(length);
    }
  }

  void AddChanged(uint64_t offset, uint64_t length) {
    if (!changed_.empty() && changed_.back().layer == layer_ &&
        changed_.back().guest.end() == offset) {
      changed_.back().guest.length += length;
      return;
    }
    changed_.push_back({layer_, MakeGuestRange(offset, length)});
  }

  bool Patched(const MappingRow& row, uint64_t length) {
    if (IsEmpty(row.state) || !row.host_offset || (row.flags & kMappingDataFile)) return false;
    const uint64_t stored =
        row.state == MappingState::kCompressed ? row.host_length.value_or(length) : length;
    return patched_.Overlaps(*row.host_offset, stored);
  }

  // Both rows start at the same guest offset and have `length` bytes and more.
  Status CompareRun(const MappingRow& a, const MappingRow& b, uint64_t length, bool gone) {
    if (a.flags & kMappingDamaged) return Ok();
    const bool same_map =
        a.state == b.state &&
        (IsEmpty(a.state) || (a.host_offset == b.host_offset &&
                              (a.flags & kMappingDataFile) == (b.flags & kMappingDataFile)));
    const bool backed = a.state == MappingState::kUnallocated && has_backing_;
    if (gone) {  // the disk, or its end, is no longer there
      AddChanged(a.guest_offset, length);
      return Ok();
    }
    if (IsEmpty(a.state) && IsEmpty(b.state)) {
      const bool equal = a.state == b.state ? !backed || same_backing_ : !has_backing_;
      if (!equal) AddChanged(a.guest_offset, length);
      return Ok();
    }
    if (same_map && !Patched(a, length) && !Patched(b, length) &&
        (a.state != MappingState::kCompressed || a.host_length == b.host_length)) {
      return Ok();
    }
    if (backed || (b.state == MappingState::kUnallocated && has_backing_) ||
        ((a.flags | b.flags) & kMappingDataFile)) {
      AddChanged(a.guest_offset, length);  // the other bytes are in a file we do not open
      return Ok();
    }
    const bool plain = a.state != MappingState::kCompressed && b.state != MappingState::kCompressed;
    const bool moved = !same_map && by_place_;
    return plain && !moved ? CompareStored(a, b, length) : CompareRead(a, b, length);
  }

  // Stored bytes of plain data are the guest's, or encrypted regardless of their place.
  Status CompareStored(const MappingRow& a, const MappingRow& b, uint64_t length) {
    auto read = [](const ByteSource& source, const MappingRow& row, uint64_t skip,
                   MutableBytes buffer) -> Status {
      if (IsEmpty(row.state) || !row.host_offset) {
        std::fill(buffer.begin(), buffer.end(), uint8_t{0});
        return Ok();
      }
      return ReadPadded(source, SaturatingAdd(*row.host_offset, skip), buffer);
    };
    return CompareContent(
        a.guest_offset, length,
        [&](uint64_t skip, MutableBytes buffer) { return read(before_.bytes, a, skip, buffer); },
        [&](uint64_t skip, MutableBytes buffer) { return read(after_.bytes, b, skip, buffer); });
  }

  Status CompareRead(const MappingRow& a, const MappingRow& b, uint64_t length) {
    if (SameStoredSpan(a, b)) return Ok();
    const uint64_t start = a.guest_offset;
    return CompareContent(
        start, length,
        [&](uint64_t skip, MutableBytes buffer) { return old_reader_->Read(start + skip, buffer); },
        [&](uint64_t skip, MutableBytes buffer) {
          return new_reader_->Read(start + skip, buffer);
        });
  }

  // Compressed both times, and the same bytes: they decode to the same.
  bool SameStoredSpan(const MappingRow& a, const MappingRow& b) const {
    if (a.state != MappingState::kCompressed || b.state != MappingState::kCompressed ||
        !a.host_offset || !b.host_offset || !a.host_length || a.host_length != b.host_length ||
        a.length != b.length || *a.host_length > 4 * kMiB) {
      return false;
    }
    ByteVector old_bytes(*a.host_length), new_bytes(*b.host_length);
    return ReadPadded(before_.bytes, *a.host_offset, old_bytes) &&
           ReadPadded(after_.bytes, *b.host_offset, new_bytes) && old_bytes == new_bytes;
  }

  using Reader = std::function<Status(uint64_t skip, MutableBytes buffer)>;
  Status CompareContent(uint64_t start, uint64_t length, const Reader& old_read,
                        const Reader& new_read) {
    old_buffer_.resize(kGuestCompareChunk);
    new_buffer_.resize(kGuestCompareChunk);
    for (uint64_t skip = 0; skip < length;) {
      IMG_RETURN_IF_ERROR(CheckStop());
      const uint64_t size = std::min(kGuestCompareChunk, length - skip);
      IMG_RETURN_IF_ERROR(CompareChunk(start, skip, size, old_read, new_read));
      skip += size;
    }
    return Ok();
  }

  Status CompareChunk(uint64_t start, uint64_t skip, uint64_t size, const Reader& old_read,
                      const Reader& new_read) {
    const MutableBytes a = MutableBytes(old_buffer_).first(size);
    const MutableBytes b = MutableBytes(new_buffer_).first(size);
    if (auto status = old_read(skip, a); !status) {
      const ErrorCode code = status.error().code;
      if (code == ErrorCode::kInterrupted || code == ErrorCode::kOutOfMemory) return status;
      const bool unknown = code == ErrorCode::kUnsupported || code == ErrorCode::kNeedsKey;
      if (unknown) AddChanged(start + skip, size);
      if (unknown || size <= kSector) return Ok();  // unreadable before: exempt
      for (uint64_t at = 0; at < size; at += kSector) {
        IMG_RETURN_IF_ERROR(
            CompareChunk(start, skip + at, std::min(kSector, size - at), old_read, new_read));
      }
      return Ok();
    }
    if (auto status = new_read(skip, b); !status) {
      const ErrorCode code = status.error().code;
      if (code == ErrorCode::kInterrupted || code == ErrorCode::kOutOfMemory) return status;
      AddChanged(start + skip, size);
      return Ok();
    }
    if (std::equal(a.begin(), a.end(), b.begin())) return Ok();
    for (uint64_t at = 0; at < size; at += kSector) {
      const uint64_t part = std::min(kSector, size - at);
      if (!std::equal(a.begin() + static_cast<ptrdiff_t>(at),
                      a.begin() + static_cast<ptrdiff_t>(at + part),
                      b.begin() + static_cast<ptrdiff_t>(at))) {
        AddChanged(start + skip + at, part);
      }
    }
    return Ok();
  }

  const ImageView& before_;
  const ImageView& after_;
  RangeSet patched_;
  const CheckOptions& options_;
  bool has_backing_ = false, same_backing_ = true, by_place_ = false;
  std::string layer_;
  LayerReader* old_reader_ = nullptr;
  LayerReader* new_reader_ = nullptr;
  ByteVector old_buffer_, new_buffer_;
  std::vector<LayerRange> changed_;
};

}  // namespace

Result<std::vector<LayerRange>> CompareGuests(const ImageView& before, const ImageView& after,
                                              RangeSet patched, const CheckOptions& options) {
  return Comparison(before, after, std::move(patched), options).Run();
}

}  // namespace imgfsck
