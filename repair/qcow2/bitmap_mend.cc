// SPDX-License-Identifier: Apache-2.0
#include "repair/qcow2/bitmap_mend.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "formats/qcow2/metadata.h"

namespace imgfsck::qcow2 {

BitmapMender::BitmapMender(const PassContext& context, const BitmapSearch& search, Editor* editor,
                           PassOutcome* outcome)
    : context_(context),
      state_(StateOf(context.report)),
      image_(*state_.image),
      search_(search),
      editor_(*editor),
      outcome_(*outcome) {}

std::optional<uint64_t> BitmapMender::NeededEntries(const Bitmap& b) const {
  return BitmapTableEntries(image_.header.size, b.granularity_bits, image_.geometry.cluster_size);
}

bool BitmapMender::HasToGo(const Bitmap& b) const {
  bool unknown_extra = b.extra_data_size != 0 && (b.flags & kBitmapExtraCompatible) == 0;
  return (b.type != 1 && Should(Problem::kQcow2BitmapType)) ||
         ((b.granularity_bits < kMinGranularityBits || b.granularity_bits > kMaxGranularityBits) &&
          Should(Problem::kQcow2BitmapGranularity)) ||
         (unknown_extra && Should(Problem::kQcow2BitmapExtra)) ||
         // Only by --fix: what was not closed cleanly is of no use any more.
         (b.in_use() && Should(Problem::kQcow2BitmapInUse));
}

bool BitmapMender::MendEntry(Bitmap* b, const std::vector<Bitmap>& kept) {
  if (HasToGo(*b)) return false;
  if (Should(Problem::kQcow2BitmapExtra)) {
    // Its own flag says that the bitmap means the same without.
    b->extra_data_size = 0;
    b->flags &= ~kBitmapExtraCompatible;
  }
  if ((b->flags & ~kBitmapFlagsKnown) != 0) {
    b->flags = (b->flags & kBitmapFlagsKnown) | kBitmapInUse;
  }
  const bool listed_well = image_.header.Autoclear(kAutoclearBitmaps) &&
                           !context_.report.findings.Has(Problem::kQcow2BitmapExtLength);
  if (!listed_well) b->flags |= kBitmapInUse;
  MendName(b, kept);
  return FindTable(b);
}

void BitmapMender::MendName(Bitmap* b, const std::vector<Bitmap>& kept) {
  auto taken = [&] {
    return std::ranges::any_of(kept, [&](const Bitmap& other) { return other.name == b->name; });
  };
  if (b->name.empty()) {
    for (int n = 1; b->name.empty() || taken(); ++n) b->name = fmt::format("recovered-{}", n);
    outcome_.particulars.push_back(
        fmt::format("a dirty bitmap without a name is \"{}\" now", b->name));
  }
  b->name.resize(std::min<size_t>(b->name.size(), kMaxBitmapName));
  while (taken()) b->name = b->name.substr(0, kMaxBitmapName - 2) + "-2";
}

// Where the bitmap's table is and how long. False: nobody knows.
bool BitmapMender::FindTable(Bitmap* b) {
  const uint64_t cluster_size = image_.geometry.cluster_size;
  auto needed = NeededEntries(*b);
  if (b->table_size == 0 || b->table_size > kMaxBitmapTableEntries ||
      uint64_t{b->table_size} * cluster_size > kMaxBitmapBytes) {
    if (!needed || *needed == 0 || *needed * cluster_size > kMaxBitmapBytes) return false;
    b->table_size = static_cast<uint32_t>(*needed);
    b->flags |= kBitmapInUse;
  }
  if (needed != b->table_size) b->flags |= kBitmapInUse;
  if (b->table_offset != 0 && !LoadBitmapTable(image_, *b).empty()) return true;
  Bitmap trial = *b;
  trial.table_offset = AlignDown(b->table_offset, cluster_size);
  if (!search_.IsOrphanTable(trial)) {
    auto found = search_.FindTable(trial);
    if (!found) return false;
    trial.table_offset = *found;
  }
  b->table_offset = trial.table_offset;
  b->flags |= kBitmapInUse;
  outcome_.particulars.push_back(
      fmt::format("the lost table of the dirty bitmap \"{}\" was found", Printable(b->name)));
  return true;
}

// An entry that cannot be right. That its whole range may have changed is true in any case; --all
// goes on with that. Otherwise as much as can be is kept, and the bitmap is no longer trusted.
uint64_t BitmapMender::Mended(uint64_t value, Bitmap* b) const {
  const uint64_t offset = value & kOffsetMask;
  const unsigned bits = image_.geometry.cluster_bits;
  const bool lost =
      offset != 0 && (!IsAligned(offset, image_.geometry.cluster_size) ||
                      offset >= image_.file_size || state_.claims().IsConflict(offset >> bits));
  const bool reserved =
      (value & kBitmapEntryReserved) != 0 || (offset != 0 && (value & kBitmapAllOnes) != 0);
  if (!lost && !reserved) return value;
  if (context_.options.mode == RepairMode::kAll) return kBitmapAllOnes;
  b->flags |= kBitmapInUse;
  if (!lost) return offset == 0 ? kBitmapAllOnes : offset;
  const uint64_t rounded = AlignDown(offset, image_.geometry.cluster_size);
  return search_.IsOrphan(rounded) ? rounded : kBitmapAllOnes;
}

Status BitmapMender::MendTable(Bitmap* b) {
  std::vector<uint64_t> table = LoadBitmapTable(image_, *b);
  for (size_t entry = 0; entry < table.size(); ++entry) {
    const uint64_t mended = Mended(table[entry], b);
    if (mended == table[entry]) continue;
    IMG_RETURN_IF_ERROR(editor_.Write64(b->table_offset + 8 * entry, mended));
    table[entry] = mended;
    ++outcome_.changes;
  }
  return Should(Problem::kQcow2BitmapTailBits) ? MendTail(*b, table) : Ok();
}

Status BitmapMender::MendTail(const Bitmap& b, const std::vector<uint64_t>& table) {
  auto needed = NeededEntries(b);
  const uint64_t offset = table.empty() ? 0 : table.back() & kOffsetMask;
  if (!needed || *needed != table.size() || offset == 0) return Ok();
  ByteVector data(image_.geometry.cluster_size);
  IMG_RETURN_IF_ERROR(editor_.Read(offset, data));
  const ByteVector before = data;
  const uint64_t bits = DivRoundUp(image_.header.size, uint64_t{1} << b.granularity_bits) -
                        (table.size() - 1) * data.size() * 8;
  uint64_t byte = bits / 8;
  if (bits % 8 != 0) {
    data[byte] = static_cast<uint8_t>(data[byte] & ((1u << (bits % 8)) - 1));
    ++byte;
  }
  std::fill(data.begin() + static_cast<ptrdiff_t>(byte), data.end(), uint8_t{0});
  if (data == before) return Ok();
  ++outcome_.changes;
  return editor_.Write(offset, data);
}

}  // namespace imgfsck::qcow2
