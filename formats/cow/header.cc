// SPDX-License-Identifier: Apache-2.0
#include "formats/cow/header.h"

#include <algorithm>

namespace imgfsck::cow {
namespace {

// Bytes that may be missing, in one of the two orders.
class View {
 public:
  View(Bytes bytes, bool little) : bytes_(bytes), little_(little) {}

  uint64_t At(uint64_t offset, unsigned length) const {
    uint64_t value = 0;
    for (unsigned i = 0; i < length; ++i) {
      uint64_t at = offset + (little_ ? length - 1 - i : i);
      value = value << 8 | (at < bytes_.size() ? bytes_[at] : 0);
    }
    return value;
  }
  uint32_t U32(uint64_t offset) const { return static_cast<uint32_t>(At(offset, 4)); }

 private:
  Bytes bytes_;
  bool little_;
};

void Put(MutableBytes bytes, uint64_t offset, unsigned length, uint64_t value, bool little) {
  for (unsigned i = 0; i < length; ++i) {
    uint64_t at = offset + (little ? i : length - 1 - i);
    bytes[at] = static_cast<uint8_t>(value >> (8 * i));
  }
}

void ParsePath(Bytes bytes, Header* header) {
  const Layout& l = header->spec();
  uint64_t begin = std::min<uint64_t>(l.path_offset, bytes.size());
  uint64_t length = std::min<uint64_t>(l.path_length, bytes.size() - begin);
  Bytes field = bytes.subspan(begin, length);
  auto end = std::find(field.begin(), field.end(), uint8_t{0});
  header->path_terminated = end != field.end() || length < l.path_length;
  header->path.assign(field.begin(), end);
  header->path_garbage = std::any_of(end, field.end(), [](uint8_t byte) { return byte != 0; });
}

}  // namespace

Header ParseHeaderAs(LayoutId layout, bool little_endian, Bytes bytes) {
  Header h;
  h.layout = layout;
  h.little_endian = little_endian;
  const Layout& l = h.spec();
  View view(bytes, little_endian);
  uint32_t magic = View(bytes, false).U32(0);
  h.magic_found = magic == kMagic || ByteSwap(magic) == kMagic;
  h.magic_little_endian = ByteSwap(magic) == kMagic;
  h.version = view.U32(l.version_offset);
  ParsePath(bytes, &h);
  h.mtime = view.At(l.mtime_offset, l.wide_mtime ? 8 : 4);
  h.size = view.At(l.size_offset, 8);
  h.sectorsize = view.U32(l.sectorsize_offset);
  h.alignment = l.alignment_offset == 0 ? 0 : view.U32(l.alignment_offset);
  // Written in host order by every writer; only zero means the same in both.
  h.cow_format = l.format_offset == 0 ? 0 : view.U32(l.format_offset);
  return h;
}

void EncodeHeader(const Header& header, MutableBytes bytes) {
  const Layout& l = header.spec();
  bool little = header.little_endian;
  // The long layout stores big-endian words in the low half of 8 bytes; the other half is zero.
  if (l.id == LayoutId::kUml2Long) std::fill_n(bytes.begin(), 16, uint8_t{0});
  Put(bytes, 0, 4, kMagic, little);
  Put(bytes, l.version_offset, 4, header.version, little);
  MutableBytes field = bytes.subspan(l.path_offset, l.path_length);
  size_t length = std::min<size_t>(header.path.size(), field.size() - 1);
  std::copy_n(header.path.begin(), length, field.begin());
  field[length] = 0;
  Put(bytes, l.mtime_offset, l.wide_mtime ? 8 : 4, header.mtime, little);
  Put(bytes, l.size_offset, 8, header.size, little);
  Put(bytes, l.sectorsize_offset, 4, header.sectorsize, little);
  if (l.alignment_offset != 0) Put(bytes, l.alignment_offset, 4, header.alignment, little);
  if (l.format_offset != 0) Put(bytes, l.format_offset, 4, header.cow_format, little);
}

std::vector<FieldPlace> FieldsOf(const Layout& l) {
  std::vector<FieldPlace> places{{"magic", 0, 4},
                                 {"version", l.version_offset, 4},
                                 {"backing_file", l.path_offset, l.path_length},
                                 {"mtime", l.mtime_offset, l.wide_mtime ? 8u : 4u},
                                 {"size", l.size_offset, 8},
                                 {"sectorsize", l.sectorsize_offset, 4}};
  if (l.alignment_offset != 0) places.push_back({"alignment", l.alignment_offset, 4});
  if (l.format_offset != 0) places.push_back({"cow_format", l.format_offset, 4});
  std::sort(places.begin(), places.end(),
            [](const FieldPlace& a, const FieldPlace& b) { return a.offset < b.offset; });
  return places;
}

}  // namespace imgfsck::cow
