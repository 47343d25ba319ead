// SPDX-License-Identifier: Apache-2.0
// Bitmap directory and tables, LUKS header and key slots are read by several rules, which all take
// what the medium does not give for zeros, or for absent. Here it is said that it was not given.
#include <algorithm>

#include "analyzers/qcow2/rules.h"
#include "base/checked.h"
#include "io/byte_source.h"

namespace imgfsck::qcow2 {
namespace {

constexpr uint64_t kPiece = 1 * kMiB;
constexpr uint64_t kMostRead = 256 * kMiB;  // of all together; only overlapping tables get there

class Reader {
 public:
  Reader(const ByteSource& source, std::vector<HostRange>* bad) : source_(source), bad_(bad) {}

  void Probe(uint64_t offset, uint64_t length) {
    if (offset >= source_.Size()) return;
    const uint64_t end = offset + std::min({length, source_.Size() - offset, left_});
    left_ -= end - offset;
    for (uint64_t at = offset; at < end; at += kPiece) {
      piece_.resize(std::min(kPiece, end - at));
      ReadTolerant(source_, at, piece_, bad_);
    }
  }

 private:
  const ByteSource& source_;
  std::vector<HostRange>* bad_;
  ByteVector piece_;
  uint64_t left_ = kMostRead;
};

}  // namespace

void ProbeSideTables(const Image& image, std::vector<HostRange>* bad) {
  Reader reader(*image.source, bad);
  if (image.bitmaps_extension) {
    reader.Probe(image.bitmaps.offset, image.bitmaps.size);
    for (const Bitmap& bitmap : image.bitmaps.entries) {
      reader.Probe(bitmap.table_offset, uint64_t{bitmap.table_size} * 8);
    }
  }
  if (!image.encryption) return;
  const uint64_t start = image.encryption->offset;
  reader.Probe(start, kLuksHeaderSize);
  if (!image.luks) return;
  const uint64_t material = image.luks->SlotSectors() * kCompressedSector;
  for (const LuksSlot& slot : image.luks->slots) {
    if (slot.state != kLuksSlotActive) continue;
    reader.Probe(SaturatingAdd(start, uint64_t{slot.key_sector} * kCompressedSector), material);
  }
}

}  // namespace imgfsck::qcow2
