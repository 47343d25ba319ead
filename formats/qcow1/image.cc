// SPDX-License-Identifier: Apache-2.0
#include "formats/qcow1/image.h"

#include <algorithm>

#include "formats/common/stored.h"
#include "formats/common/tolerant.h"

namespace imgfsck::qcow1 {
namespace {

// A guess of no consequence for sound tables: which byte order makes more entries valid.
bool LooksLikeTable(const Image& image, uint64_t value) {
  return value < image.file_size && IsAligned(value, kSector);
}

Status LoadL1Table(Image* image) {
  uint64_t begin = image->header.l1_table_offset;
  if (begin >= image->file_size) return Ok();
  uint64_t room = AlignDown(image->file_size - begin, 8);
  uint64_t end = begin + std::min(image->geometry.l1_bytes(), room);
  uint64_t big = 0, little = 0;
  auto visit = [&](uint64_t offset, Bytes bytes) -> Result<bool> {
    // Pieces may start inside an entry when the table is unaligned: cut where entries begin.
    for (uint64_t at = offset; at < offset + bytes.size();) {
      uint64_t index = (at - begin) / 8, start = begin + 8 * index;
      uint64_t next = start + 8;
      const uint8_t* p = bytes.data() + (start - std::min(start, offset));
      uint8_t whole[8];
      if (start < offset || next > offset + bytes.size()) {
        if (start < offset && !image->l1.empty() && image->l1.back().index == index) {
          at = next;  // seen with the piece before
          continue;
        }
        ReadTolerant(*image->source, start, whole, &image->unreadable);
        p = whole;
      }
      uint64_t value = LoadBe<uint64_t>(p);
      if (value != 0) {
        image->l1.push_back({index, value});
        big += LooksLikeTable(*image, value) ? 1 : 0;
        little += LooksLikeTable(*image, ByteSwap(value)) ? 1 : 0;
      }
      at = next;
    }
    return true;
  };
  IMG_RETURN_IF_ERROR(ForEachStoredPiece(*image->source, begin, end, &image->unreadable, visit));
  if (image->xen && (image->xen->flags & kXenBigEndianL1) == 0 && little > big) {
    image->l1_little_endian = true;
    for (L1Slot& slot : image->l1) slot.value = ByteSwap(slot.value);
  }
  return Ok();
}

void LoadBackingName(Image* image) {
  const Header& h = image->header;
  if (!h.has_backing_name() || h.backing_file_size > kMaxBackingNameLength ||
      !RangeFits(h.backing_file_offset, h.backing_file_size, image->file_size)) {
    return;
  }
  ByteVector name(h.backing_file_size);
  ReadTolerant(*image->source, h.backing_file_offset, name, &image->unreadable);
  image->backing_name = std::string(AsText(name));
}

// The disk's size claims entries where the tables already are that the first entries point to.
bool RunsOverItsTables(const Image& image) {
  uint64_t first_table = UINT64_MAX;
  for (const L1Slot& slot : image.l1) {
    uint64_t at = image.L1EntryOffset(slot.index);
    if (at >= first_table) return true;
    if (slot.value > at && LooksLikeTable(image, slot.value)) {
      first_table = std::min(first_table, slot.value);
    }
  }
  return false;
}

// Nothing is ever freed, so a real file ends within reach of the disk's size.
uint64_t ReachOf(const Image& image) {
  uint64_t largest = std::max(image.file_size, image.geometry.virtual_size);
  return SaturatingAdd(SaturatingMul(largest, 2), 64 * kMiB);
}

}  // namespace

SlotState Image::StateOf(const L1Slot& slot) const {
  if ((slot.value & kTopBit) != 0) return SlotState::kFlag;
  return slot.value >= file_size ? SlotState::kPastEof : SlotState::kUsable;
}

GuestRange Image::GuestOf(const L1Slot& slot) const {
  uint64_t begin = SaturatingMul(slot.index, geometry.span);
  uint64_t size = geometry.virtual_size;
  return MakeGuestRange(begin, begin >= size ? 0 : std::min(geometry.span, size - begin));
}

uint64_t LoadL1(const Image& image, const uint8_t* bytes) {
  return image.l1_little_endian ? LoadLe<uint64_t>(bytes) : LoadBe<uint64_t>(bytes);
}

void StoreL1(const Image& image, uint8_t* bytes, uint64_t value) {
  if (image.l1_little_endian) {
    StoreLe(bytes, value);
  } else {
    StoreBe(bytes, value);
  }
}

Result<std::unique_ptr<Image>> ParseImage(const ByteSource& source) {
  uint8_t bytes[kHeaderLength] = {};
  std::vector<HostRange> bad;
  ReadTolerant(source, 0, bytes, &bad);
  return ParseImageAs(source, ParseHeader(bytes));
}

Result<std::unique_ptr<Image>> ParseImageAs(const ByteSource& source, const Header& header) {
  auto image = std::make_unique<Image>();
  image->source = &source;
  image->file_size = source.Size();
  image->head.resize(std::min(kXenHeaderOffset + kXenHeaderLength, image->file_size));
  ReadTolerant(source, 0, image->head, &image->unreadable);
  image->header = header;
  image->xen = ParseXenHeader(header, image->head);
  image->l1_clear = header.l1_table_offset >= image->HeaderEnd();
  LoadBackingName(image.get());
  if (!GeometryIsSane(header)) return image;
  image->geometry = GeometryOf(header);
  image->walkable = image->geometry.l1_entries <= kMaxL1Entries && image->geometry.virtual_size > 0;
  if (!image->walkable || !image->l1_clear) return image;
  IMG_RETURN_IF_ERROR(LoadL1Table(image.get()));
  bool usual_place = header.l1_table_offset <= kXenL1Alignment;
  image->l1_clear = (usual_place && !RunsOverItsTables(*image)) || PlausibleL1(*image);
  return image;
}

void ReadL2(const Image& image, uint64_t offset, std::vector<uint64_t>* entries,
            std::vector<HostRange>* bad) {
  entries->assign(image.geometry.l2_entries, 0);
  MutableBytes bytes(reinterpret_cast<uint8_t*>(entries->data()), image.geometry.l2_bytes);
  ReadTolerant(*image.source, offset, bytes, bad);
  for (uint64_t& entry : *entries) entry = ByteSwap(entry);
}

EntryCheck CheckEntry(const Image& image, Entry entry) {
  const Geometry& g = image.geometry;
  EntryCheck check;
  uint64_t offset = entry.offset(g), length = entry.length(g);
  if (entry.compressed()) {
    check.unreadable = length == 0;
    check.past_eof = !RangeFits(offset, length, image.file_size);
    return check;
  }
  check.unreadable = !IsAligned(offset, kSector);
  check.unaligned = !check.unreadable && !IsAligned(offset, g.cluster_size);
  check.past_eof = offset >= image.file_size;
  check.cut = !check.past_eof && length > image.file_size - offset;
  return check;
}

bool PlausibleL1(const Image& image) {
  uint64_t reach = ReachOf(image), good = 0, wrong = 0;
  for (const L1Slot& slot : image.l1) {
    bool fits = slot.value >= kHeaderLength && slot.value < reach && IsAligned(slot.value, kSector);
    ++(fits ? good : wrong);
  }
  return wrong < 4 || wrong <= good;
}

bool PlausibleL2(const Image& image, const std::vector<uint64_t>& entries) {
  uint64_t reach = ReachOf(image), good = 0, wrong = 0;
  for (uint64_t raw : entries) {
    Entry entry{raw};
    if (entry.empty()) continue;
    EntryCheck check = CheckEntry(image, entry);
    bool fits = !check.unreadable && entry.offset(image.geometry) < reach &&
                (entry.compressed() || entry.offset(image.geometry) >= kHeaderLength);
    ++(fits ? good : wrong);
  }
  // A few wrong entries are reported one by one, however few the others are.
  return wrong < 4 || wrong <= good;
}

}  // namespace imgfsck::qcow1
