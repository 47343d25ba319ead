// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/mutate.h"

#include <algorithm>
#include <optional>

namespace imgfsck::fuzz {
namespace {

struct Place {
  uint64_t offset = 0, length = 0;
};

class Damager {
 public:
  Damager(ByteVector* image, const Format& format, std::mt19937_64& random)
      : image_(*image), random_(random) {
    MemoryStore copy(image_);
    auto rows = format.inspect(copy, "");
    if (!rows) return;
    for (const FieldRow& field : (*rows)->Fields()) {
      if (Fits(field.host_offset, field.length)) {
        fields_.push_back({field.host_offset, field.length});
      }
    }
    auto regions = (*rows)->Regions({});
    for (std::vector<RegionRow> batch; regions && regions_.size() < 5000;) {
      if (!regions->NextBatch(&batch) || batch.empty()) break;
      for (const RegionRow& region : batch) {
        if (!Fits(region.host_offset, region.length)) continue;
        regions_.push_back({region.host_offset, region.length});
        if (region.kind != "data" && region.kind != "compressed")
          tables_.push_back(regions_.back());
      }
    }
  }

  void Once() {
    if (image_.size() < 512) return Resize();
    switch (Pick(12)) {
      case 0:
      case 1:
      case 2:
        return Field();
      case 3:
      case 4:
      case 5:
      case 6:
        return Entry();
      case 7:
        return CopyPiece();
      case 8:
        return Fill();
      case 9:
        return Flip();
      case 10:
        return Swap();
      default:
        return Resize();
    }
  }

 private:
  uint64_t Pick(uint64_t below) { return below == 0 ? 0 : random_() % below; }
  bool Fits(uint64_t offset, uint64_t length) const {
    return length > 0 && offset <= image_.size() && length <= image_.size() - offset;
  }
  std::optional<Place> One(const std::vector<Place>& places) {
    if (places.empty()) return std::nullopt;
    return places[Pick(places.size())];
  }

  uint64_t Get(uint64_t at, uint64_t width) const {
    uint64_t value = 0;
    for (uint64_t i = 0; i < width; ++i) value = value << 8 | image_[at + i];
    return value;
  }
  void Put(uint64_t at, uint64_t width, uint64_t value) {
    for (uint64_t i = width; i-- > 0; value >>= 8) image_[at + i] = static_cast<uint8_t>(value);
  }

  // A number that some structure may take for one of its own.
  uint64_t Value(uint64_t old, uint64_t width) {
    const auto region = One(regions_);
    const uint64_t unit = uint64_t{512} << Pick(6);
    switch (Pick(16)) {
      case 0:
        return 0;
      case 1:
        return UINT64_MAX;
      case 2:
        return old + 1;
      case 3:
        return old - 1;
      case 4:
        return old ^ uint64_t { 1 } << Pick(8 * width);
      case 5:
        return uint64_t{1} << Pick(8 * width);
      case 6:
        return image_.size();
      case 7:
        return image_.size() / unit * unit;
      case 8:
        return old + unit;
      case 9:
        return Pick(image_.size() / unit) * unit;
      case 10:
        return Pick(image_.size());
      case 11:
        return region ? region->offset / 512 : 1;
      case 12:
        return old << Pick(9);
      case 13:
        return random_();
      default:  // another structure's place, with the flags that were there
        return region ? region->offset | (old & 0xC000'0000'0000'0001) : random_();
    }
  }

  void Field() {
    const auto field = One(fields_);
    if (!field) return Flip();
    if (field->length > 8) {
      image_[field->offset + Pick(field->length)] = static_cast<uint8_t>(random_());
      return;
    }
    Put(field->offset, field->length, Value(Get(field->offset, field->length), field->length));
  }
  // A number in a table; or one that another one holds already.
  void Entry() {
    const auto table = One(tables_);
    if (!table) return Field();
    const uint64_t width = Pick(4) == 0 ? 4 : 8;
    if (table->length < 2 * width) return Field();
    const uint64_t slots = table->length / width;
    // Tables are used from their beginning on.
    const uint64_t slot = Pick(2) == 0 ? Pick(slots) : Pick(std::min<uint64_t>(slots, 24));
    const uint64_t at = table->offset + slot * width;
    const uint64_t other = table->offset + Pick(std::min<uint64_t>(slots, 24)) * width;
    Put(at, width, Pick(4) == 0 ? Get(other, width) : Value(Get(at, width), width));
  }
  Place Piece() {
    const auto place = One(Pick(3) == 0 ? regions_ : tables_);
    Place piece = place.value_or(Place{Pick(image_.size()), 512});
    piece.length = std::min({piece.length, image_.size() - piece.offset, 1 + Pick(4096)});
    return piece;
  }
  void CopyPiece() {
    const Place from = Piece(), to = Piece();
    const uint64_t length = std::min(from.length, to.length);
    std::copy_n(ByteVector(image_).begin() + static_cast<ptrdiff_t>(from.offset), length,
                image_.begin() + static_cast<ptrdiff_t>(to.offset));
  }
  void Fill() {
    const Place piece = Piece();
    const uint64_t how = Pick(3);
    for (uint64_t i = 0; i < piece.length; ++i) {
      image_[piece.offset + i] = how == 0 ? 0 : how == 1 ? 0xFF : static_cast<uint8_t>(random_());
    }
  }
  void Flip() {
    const uint64_t at =
        Pick(2) == 0 ? Pick(std::min<size_t>(image_.size(), 600)) : Pick(image_.size());
    image_[at] = static_cast<uint8_t>(image_[at] ^ (1u << Pick(8)));
  }
  void Swap() {
    const auto table = One(tables_);
    if (!table || table->length < 16) return Flip();
    const uint64_t slots = std::min<uint64_t>(table->length / 8, 32);
    const uint64_t a = table->offset + Pick(slots) * 8, b = table->offset + Pick(slots) * 8;
    const uint64_t held = Get(a, 8);
    Put(a, 8, Get(b, 8));
    Put(b, 8, held);
  }
  void Resize() {
    if (Pick(2) == 0) {
      image_.resize(image_.size() - Pick(std::min<size_t>(image_.size(), 9000)));
    } else {
      const uint64_t more = Pick(9000);
      if (image_.size() + more <= kLargestImage) image_.resize(image_.size() + more);
    }
  }

  ByteVector& image_;
  std::mt19937_64& random_;
  std::vector<Place> fields_, regions_, tables_;
};

}  // namespace

void Mutate(ByteVector* image, const Format& format, std::mt19937_64& random) {
  Damager damager(image, format, random);
  // One wrong value more often than many: those get furthest.
  uint64_t times = 1;
  while (times < 8 && random() % 2 == 0) ++times;
  for (; times > 0; --times) damager.Once();
}

}  // namespace imgfsck::fuzz
