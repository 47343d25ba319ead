// SPDX-License-Identifier: Apache-2.0
// Which fields of a dynamic header with a wrong checksum were hit: tries usual values in their
// place until the stored checksum is right. It is a weak one, a sum, so what comes out must also
// agree with the size of the disk and with how far apart the blocks lie.
#include <algorithm>
#include <array>

#include "base/checked.h"
#include "formats/vhd/encode.h"
#include "formats/vhd/header.h"
#include "formats/vhd/infer.h"

namespace imgfsck::vhd {
namespace {

class HeaderCorrector {
 public:
  explicit HeaderCorrector(const Image& image)
      : image_(image),
        stored_(WithCookie(image.stored_header)),
        disk_size_(std::max(image.footer.current_size, image.VirtualSize())) {}

  std::optional<DynHeader> Run() {
    TryBlockSize(stored_, 0);
    static constexpr std::array<uint32_t, 12> kBlockSizes = {0x200000, 0x80000, 0x100000, 0x400000,
                                                             0x40000,  0x20000, 0x10000,  0x8000,
                                                             0x4000,   0x2000,  0x1000,   0x800000};
    for (uint32_t block_size : kBlockSizes) {
      if (block_size == stored_.block_size) continue;
      DynHeader h = stored_;
      h.block_size = block_size;
      TryBlockSize(h, 1);
    }
    return best_;
  }

 private:
  void TryBlockSize(const DynHeader& h, int edits) {
    if (!BlockSizeSane(h.block_size)) return;
    TryEntries(h, edits);
    if (disk_size_ == 0) return;
    uint64_t needed = DivRoundUp(disk_size_, h.block_size);
    for (uint64_t entries : {needed, disk_size_ / h.block_size + 1}) {
      if (entries > UINT32_MAX || entries == h.max_entries) continue;
      DynHeader other = h;
      other.max_entries = static_cast<uint32_t>(entries);
      TryEntries(other, edits + 1);
    }
  }
  void TryEntries(const DynHeader& h, int edits) {
    TryTable(h, edits);
    for (uint64_t table : {kDefaultTableOffset, image_.header_offset + kHeaderSize}) {
      if (table == h.table_offset) continue;
      DynHeader other = h;
      other.table_offset = table;
      TryTable(other, edits + 1);
    }
  }
  void TryTable(const DynHeader& h, int edits) {
    for (int choice = 0; choice < 16; ++choice) {
      DynHeader other = h;
      int more = 0;
      auto change = [&](int bit, auto&& apply) {
        if ((choice & bit) == 0) return;
        apply();
        ++more;
      };
      change(1, [&] { other.version = kVersion1; });
      change(2, [&] { other.next_offset = kNoOffset; });
      change(4, [&] { ClearReserved(&other); });
      change(8, [&] { ClearParent(&other); });
      if (edits + more < best_edits_) TryWhole(other, edits + more);
    }
  }
  void TryWhole(DynHeader h, int edits) {
    uint32_t sum = h.checksum;
    Seal(&h);
    if (h.checksum != sum || !Agrees(h)) return;
    best_ = h;
    best_edits_ = edits;
  }

  bool Agrees(const DynHeader& h) {
    bool as_stored = h.max_entries == stored_.max_entries;
    uint64_t needed = DivRoundUp(disk_size_, h.block_size);
    if (h.max_entries < needed || (!as_stored && h.max_entries > needed + 1)) return false;
    if (!TableOffsetSane(image_, h.table_offset)) return false;
    return BlocksLieApart(image_, h.table_offset, h.block_size);
  }

  static void ClearReserved(DynHeader* h) {
    std::fill_n(h->raw.begin() + header_at::kReserved1, 4, uint8_t{0});
    std::fill(h->raw.begin() + header_at::kReserved2, h->raw.end(), uint8_t{0});
  }
  void ClearParent(DynHeader* h) const {
    if (image_.kind != Kind::kDifferencing) RemoveParent(h);
  }

  const Image& image_;
  const DynHeader stored_;
  const uint64_t disk_size_;
  std::optional<DynHeader> best_;
  int best_edits_ = 100;
};

}  // namespace

std::optional<DynHeader> CorrectHeader(const Image& image) { return HeaderCorrector(image).Run(); }

}  // namespace imgfsck::vhd
