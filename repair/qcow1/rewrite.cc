// SPDX-License-Identifier: Apache-2.0
// Writes the whole image anew: without the bytes that nothing refers to, and with clusters of one
// sector where there is a backing file, as other writers need them. Only on request, and only when
// nothing is damaged: what cannot be read would be dropped silently. Bytes are copied as stored,
// so that an encrypted image needs no passphrase.
#include <algorithm>

#include "base/interrupt.h"
#include "formats/common/deflate.h"
#include "io/overlay.h"
#include "repair/qcow1/editor.h"
#include "repair/qcow1/passes.h"

namespace imgfsck::qcow1 {
namespace {

class Copier {
 public:
  Copier(const Image& image, const std::vector<TableFate>& fates, const Header& header,
         ByteStore* out)
      : image_(image), fates_(fates), header_(header), new_(GeometryOf(header)), out_(out) {}

  Status Run() {
    uint64_t name_size = image_.backing_name ? image_.backing_name->size() : 0;
    uint64_t front = image_.HeaderEnd();
    header_.backing_file_offset = name_size > 0 ? front : 0;
    header_.backing_file_size = static_cast<uint32_t>(name_size);
    header_.l1_table_offset = AlignUp(front + name_size, image_.xen ? kXenL1Alignment : 8);
    ByteVector start(header_.l1_table_offset);
    std::copy_n(image_.head.begin(), std::min<uint64_t>(front, image_.head.size()), start.begin());
    EncodeHeader(header_, start);
    if (name_size > 0) {
      std::copy(image_.backing_name->begin(), image_.backing_name->end(),
                start.begin() + static_cast<ptrdiff_t>(front));
    }
    IMG_RETURN_IF_ERROR(out_->WriteAt(0, start));
    IMG_RETURN_IF_ERROR(out_->SetSize(header_.l1_table_offset + new_.l1_bytes()));
    IMG_RETURN_IF_ERROR(
        ForEachEntry(image_, fates_, [this](const EntryRef& ref) { return Take(ref); }));
    return FinishTable();
  }

 private:
  Status Take(const EntryRef& ref) {
    uint64_t guest = ref.Guest(image_);
    if (guest >= image_.geometry.virtual_size) return Ok();
    const Geometry& old = image_.geometry;
    bool same = old.cluster_size == new_.cluster_size;
    ByteVector bytes(ref.entry.length(old));
    IMG_RETURN_IF_ERROR(ReadPadded(*image_.source, ref.entry.offset(old), bytes));
    if (ref.entry.compressed() && same) {
      IMG_RETURN_IF_ERROR(OpenTable(guest));
      IMG_ASSIGN_OR_RETURN(uint64_t at, Append(bytes, kSector));
      Set(guest, Entry::Compressed(new_, at, bytes.size()));
      return Ok();
    }
    if (ref.entry.compressed()) {
      if (image_.encrypted()) {
        return Error{ErrorCode::kNeedsKey, "a compressed cluster of an encrypted image", guest};
      }
      ByteVector cluster(old.cluster_size);
      IMG_RETURN_IF_ERROR(InflateRaw(bytes, cluster));
      bytes = std::move(cluster);
    }
    for (uint64_t at = 0; at < bytes.size(); at += new_.cluster_size) {
      if (guest + at >= old.virtual_size) break;
      IMG_RETURN_IF_ERROR(OpenTable(guest + at));
      IMG_ASSIGN_OR_RETURN(uint64_t host,
                           Append(Bytes(bytes).subspan(at, new_.cluster_size), new_.cluster_size));
      Set(guest + at, Entry{host});
    }
    return Ok();
  }

  Result<uint64_t> Append(Bytes bytes, uint64_t alignment) {
    IMG_RETURN_IF_ERROR(CheckStop());
    uint64_t at = AlignUp(out_->Size(), alignment);
    IMG_RETURN_IF_ERROR(out_->WriteAt(at, bytes));
    return at;
  }

  // Guest order: a table is complete when the first cluster of another one comes.
  Status OpenTable(uint64_t guest) {
    uint64_t index = guest / new_.span;
    if (table_at_ != 0 && index == index_) return Ok();
    IMG_RETURN_IF_ERROR(FinishTable());
    index_ = index;
    table_.assign(new_.l2_bytes, 0);
    table_at_ = AlignUp(out_->Size(), new_.cluster_size);
    IMG_RETURN_IF_ERROR(out_->SetSize(table_at_ + new_.l2_bytes));
    uint8_t entry[8];
    StoreL1(image_, entry, table_at_);
    return out_->WriteAt(header_.l1_table_offset + 8 * index, entry);
  }
  void Set(uint64_t guest, Entry entry) {
    PutBe(table_, 8 * (guest / new_.cluster_size % new_.l2_entries), entry.raw);
  }
  Status FinishTable() { return table_at_ == 0 ? Ok() : out_->WriteAt(table_at_, table_); }

  const Image& image_;
  const std::vector<TableFate>& fates_;
  Header header_;
  Geometry new_;
  ByteStore* out_;
  ByteVector table_;
  uint64_t table_at_ = 0, index_ = 0;
};

Status CopyBack(const ByteSource& from, ByteStore* to) {
  IMG_RETURN_IF_ERROR(to->SetSize(from.Size()));
  ByteVector piece(kMiB);
  for (uint64_t at = 0; at < from.Size(); at += piece.size()) {
    IMG_RETURN_IF_ERROR(CheckStop());
    MutableBytes part(piece.data(), std::min<uint64_t>(piece.size(), from.Size() - at));
    IMG_RETURN_IF_ERROR(ReadExact(from, at, part));
    IMG_RETURN_IF_ERROR(to->WriteAt(at, part));
  }
  return Ok();
}

}  // namespace

Result<PassOutcome> Rewrite(const PassContext& context) {
  Editor editor(context);
  const Image& image = editor.image();
  if (context.report.findings.Units(Severity::kCorruption) > 0 || !image.walkable) {
    editor.Note("the image is not written anew while damage is left in it");
    return editor.Finish();
  }
  Header header = image.header;
  const auto& by_code = context.options.also_fix;
  if (editor.Found(Problem::kQcowBackingCluster) &&
      by_code.contains(Problem::kQcowBackingCluster)) {
    header.cluster_bits = kMinClusterBits;
    header.l2_bits = 12;
    if (GeometryOf(header).l1_entries > kMaxL1Entries) header.l2_bits = kMaxL2Bits;
    if (GeometryOf(header).l1_entries > kMaxL1Entries) {
      editor.Note("the disk is too large for clusters of one sector");
      return editor.Finish();
    }
  }
  MemoryStore empty;
  Overlay fresh(empty);
  IMG_RETURN_IF_ERROR(Copier(image, editor.state().fates, header, &fresh).Run());
  IMG_RETURN_IF_ERROR(CopyBack(fresh, &context.image));
  ++editor.outcome().changes;
  return editor.Finish();
}

}  // namespace imgfsck::qcow1
