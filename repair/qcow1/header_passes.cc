// SPDX-License-Identifier: Apache-2.0
// Header fields, the backing file's name, and the tapdisk fields.
#include <fmt/format.h>

#include <algorithm>

#include "formats/qcow1/xen.h"
#include "repair/qcow1/editor.h"
#include "repair/qcow1/infer.h"
#include "repair/qcow1/passes.h"

namespace imgfsck::qcow1 {
namespace {

constexpr uint64_t kUnchecked = ~uint64_t{0};

// The rest of the header is that of a version 1 image of this length.
bool RestHolds(const Header& h, uint64_t file_size) {
  return GeometryIsSane(h) && h.crypt_method <= kCryptAes && h.size >= kMinSize &&
         GeometryOf(h).l1_entries <= kMaxL1Entries && h.l1_table_offset >= kHeaderLength &&
         h.l1_table_offset < file_size;
}

Status RepairGeometry(Editor* editor, Header* header) {
  if (GeometryIsSane(*header)) return Ok();
  IMG_ASSIGN_OR_RETURN(auto inferred, InferGeometry(editor->bytes(), *header));
  if (inferred) {
    *header = *inferred;
  } else {
    editor->Note("the cluster and table sizes cannot be worked out from the tables");
  }
  return Ok();
}

Status RepairSize(Editor* editor, Header* header) {
  if (!GeometryIsSane(*header)) return Ok();
  bool wrong = header->size < kMinSize || GeometryOf(*header).l1_entries > kMaxL1Entries;
  if (!wrong) return Ok();
  IMG_ASSIGN_OR_RETURN(auto size, InferSize(editor->bytes(), *header));
  if (size) {
    header->size = *size;
  } else {
    editor->Note("nothing is mapped that the size of the disk could be taken from");
  }
  return Ok();
}

// The first part of the name that is text a path can be made of.
std::string TextOf(Bytes bytes) {
  std::string text;
  for (uint8_t byte : bytes) {
    if (byte < 0x20 || byte == 0x7F) break;
    text.push_back(static_cast<char>(byte));
  }
  return text;
}

}  // namespace

Result<PassOutcome> RepairHeader(const PassContext& context) {
  Editor editor(context);
  const Header stored = editor.image().header;
  Header header = stored;
  bool geometry = editor.Mends(Problem::kQcowClusterBits) || editor.Mends(Problem::kQcowL2Bits);
  bool size = editor.Mends(Problem::kQcowSizeSmall) || editor.Mends(Problem::kQcowSizeOverflow);
  if (geometry) IMG_RETURN_IF_ERROR(RepairGeometry(&editor, &header));
  if (size) IMG_RETURN_IF_ERROR(RepairSize(&editor, &header));
  if (editor.Mends(Problem::kQcowCrypt)) {
    IMG_ASSIGN_OR_RETURN(header.crypt_method, InferCrypt(editor.bytes(), header));
  }
  if (RestHolds(header, editor.image().file_size)) {
    if (editor.Mends(Problem::kQcowMagic)) header.magic = kMagic;
    if (editor.Mends(Problem::kQcowVersion)) header.version = kVersion;
  }
  if (editor.Mends(Problem::kQcowPadding)) header.padding = 0;
  if (editor.Mends(Problem::kQcowMtime)) header.mtime = 0;
  if (editor.Mends(Problem::kQcowSizeUnaligned) && header.size < kUnchecked - kSector) {
    header.size = AlignUp(header.size, kSector);
  }
  uint8_t before[kHeaderLength], after[kHeaderLength];
  EncodeHeader(stored, before);
  EncodeHeader(header, after);
  if (std::equal(std::begin(before), std::end(before), std::begin(after))) return editor.Finish();
  IMG_RETURN_IF_ERROR(editor.SetHeader(header));
  return editor.Finish();
}

Result<PassOutcome> RepairBackingName(const PassContext& context) {
  Editor editor(context);
  Header header = editor.image().header;
  uint64_t file_size = editor.image().file_size;
  if (editor.Mends(Problem::kQcowBackingName)) {
    if (!header.has_backing_name()) {
      header.backing_file_offset = 0;
      IMG_RETURN_IF_ERROR(editor.SetHeader(header));
      return editor.Finish();
    }
    // From a place where no name can be, back to the one where writers put it.
    if (!editor.image().name_is_clear() || header.backing_file_offset >= file_size) {
      header.backing_file_offset = editor.image().HeaderEnd();
    }
    uint64_t limit = std::max(file_size, header.backing_file_offset);
    if (header.l1_table_offset > header.backing_file_offset) {
      limit = std::min(limit, header.l1_table_offset);
    }
    uint64_t length = std::min<uint64_t>(
        {limit - header.backing_file_offset, header.backing_file_size, kMaxBackingNameLength});
    ByteVector name(length);
    IMG_RETURN_IF_ERROR(ReadPadded(editor.bytes(), header.backing_file_offset, name));
    std::string text = TextOf(name);
    if (text.empty()) {
      editor.Note("no readable backing file name stands where the header says");
    } else {
      header.backing_file_size = static_cast<uint32_t>(text.size());
      IMG_RETURN_IF_ERROR(editor.SetHeader(header));
      editor.Changed(MakeGuestRange(0, editor.image().geometry.virtual_size), false);
    }
    return editor.Finish();
  }
  // Only when the user asks for it by its code: without the file its ranges read as zeros.
  if (context.options.also_fix.contains(Problem::kQcowBackingMissing) &&
      editor.Found(Problem::kQcowBackingMissing)) {
    header.backing_file_offset = 0;
    header.backing_file_size = 0;
    IMG_RETURN_IF_ERROR(editor.SetHeader(header));
    editor.Changed(MakeGuestRange(0, editor.image().geometry.virtual_size), false);
    editor.Note("the image no longer names a backing file; what it held reads as zeros");
  }
  return editor.Finish();
}

Result<PassOutcome> RepairXenOrder(const PassContext& context) {
  Editor editor(context);
  const Image& image = editor.image();
  if (!image.xen || !image.l1_little_endian) return editor.Finish();
  for (const L1Slot& slot : image.l1) {
    uint8_t bytes[8];
    StoreBe(bytes, slot.value);
    IMG_RETURN_IF_ERROR(editor.bytes().WriteAt(image.L1EntryOffset(slot.index), bytes));
    ++editor.outcome().changes;
  }
  XenHeader xen = *image.xen;
  xen.flags |= kXenBigEndianL1;
  IMG_ASSIGN_OR_RETURN(xen.checksum, XenChecksum(editor.bytes(), image.geometry,
                                                 image.header.l1_table_offset, false));
  uint8_t bytes[kXenHeaderLength];
  EncodeXenHeader(xen, bytes);
  IMG_RETURN_IF_ERROR(editor.bytes().WriteAt(kXenHeaderOffset, bytes));
  return editor.Finish();
}

Result<PassOutcome> RepairXenChecksum(const PassContext& context) {
  Editor editor(context);
  const Image& image = editor.image();
  if (!image.xen || !image.walkable || !image.l1_clear) return editor.Finish();
  XenHeader xen = *image.xen;
  IMG_ASSIGN_OR_RETURN(xen.checksum,
                       XenChecksum(editor.bytes(), image.geometry, image.header.l1_table_offset,
                                   image.l1_little_endian));
  if (xen.checksum == image.xen->checksum) return editor.Finish();
  uint8_t bytes[kXenHeaderLength];
  EncodeXenHeader(xen, bytes);
  IMG_RETURN_IF_ERROR(editor.bytes().WriteAt(kXenHeaderOffset, bytes));
  ++editor.outcome().changes;
  return editor.Finish();
}

}  // namespace imgfsck::qcow1
