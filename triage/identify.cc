// SPDX-License-Identifier: Apache-2.0
#include "triage/identify.h"

#include <algorithm>

#include "formats/vhd/layout.h"
#include "io/lock.h"

namespace imgfsck {
namespace {

std::vector<Signature> Listed(const std::vector<ContentMatch>& matches) {
  std::vector<Signature> list;
  for (const ContentMatch& m : matches) {
    list.push_back({std::string(m.name), m.kind, m.offset, m.length});
  }
  return list;
}

const Signature* FirstOf(const std::vector<Signature>& signatures, ContentKind kind) {
  const auto found = std::ranges::find(signatures, kind, &Signature::kind);
  return found == signatures.end() ? nullptr : &*found;
}

bool HoldsADisk(const std::vector<Signature>& signatures) {
  return FirstOf(signatures, ContentKind::kPartitionTable) != nullptr ||
         FirstOf(signatures, ContentKind::kFileSystem) != nullptr;
}

// The format that content tells; a disk without any format around it is raw.
const Format* ChooseFormat(const ByteSource& source, const std::vector<Signature>& signatures,
                           bool* damaged) {
  const Format* format = ProbeFormat(source);
  const bool disk = HoldsADisk(signatures);
  if (format != nullptr) {
    *damaged = format->probe(source) <= ProbeScore::kHeaderDamaged;
    const bool signed_too =
        std::ranges::any_of(signatures, [&](const Signature& s) { return s.name == format->name; });
    if (!*damaged || signed_too || !disk) return format;
    *damaged = false;  // a likeness of numbers, in what is clearly a disk
  }
  if (FirstOf(signatures, ContentKind::kContainer) != nullptr) return nullptr;
  return disk ? FindFormat("raw") : nullptr;
}

void DescribeRows(const ImageRows& rows, IdentityFacts* facts) {
  const ImageRow row = rows.Image();
  facts->version = row.version;
  facts->virtual_size = row.virtual_size;
  facts->cluster_size = row.cluster_size;
  facts->links = rows.Links();
  facts->snapshots = rows.Snapshots();
  facts->bitmaps = rows.Bitmaps();
  for (const FieldRow& field : rows.Fields()) {
    if (field.name == "unique_id" && facts->id.empty()) facts->id = field.raw;
    if (field.name == "parent_unique_id") facts->parent_id = field.raw;
    if (field.value.value_or(0) == 0) continue;
    if (field.name == "mtime") facts->parent_mtime = static_cast<int64_t>(*field.value);
    if (field.name == "timestamp" && !facts->created) {
      facts->created = vhd::kEpoch + static_cast<int64_t>(*field.value);
    }
    if (field.name == "parent_timestamp") {
      facts->parent_mtime = vhd::kEpoch + static_cast<int64_t>(*field.value);
    }
  }
}

}  // namespace

bool Subject::Changed(const FoundFile& found) const {
  auto now = file->Identity();
  if (!now) return true;
  // The size of a block device is not in its inode.
  if (found.block_device) now->size = found.identity.size;
  return *now != found.identity;
}

std::vector<Signature> GuestSignatures(const ByteSource& file, const Format& format) {
  if (format.open == nullptr) return {};
  auto driver = format.open(file, nullptr, {});
  if (!driver) return {};
  return Listed(RecognizeDisk((*driver)->VirtualSize(), [&](uint64_t offset, MutableBytes buffer) {
    const uint64_t size = (*driver)->VirtualSize();
    std::ranges::fill(buffer, uint8_t{0});
    // A piece at a time: what is damaged costs itself alone.
    constexpr uint64_t kPiece = 4096;
    for (uint64_t at = 0; at < buffer.size() && offset + at < size; at += kPiece) {
      const uint64_t length = std::min({kPiece, buffer.size() - at, size - offset - at});
      const MutableBytes piece = buffer.subspan(at, length);
      if (!(*driver)->Read(offset + at, piece)) std::ranges::fill(piece, uint8_t{0});
    }
  }));
}

Subject OpenSubject(const FoundFile& found, IdentityFacts* facts) {
  Subject subject;
  facts->kind = FileKind::kUnreadable;
  facts->file_size = found.identity.size;
  facts->stored = found.stored;
  auto file = FileSource::Open(found.path);
  if (!file) {
    facts->trouble = file.error().message;
    return subject;
  }
  subject.file = std::move(*file);
  facts->file_size = subject.file->Size();
  if (auto use = ProbeImageUse(subject.file->fd()); use) facts->in_use = use->written;
  uint8_t first = 0;
  if (facts->file_size > 0) {
    auto readable = subject.file->ReadAt(0, {&first, 1});
    if (!readable) facts->trouble = readable.error().message;
  }
  facts->kind = FileKind::kOther;
  if (facts->file_size == 0) return subject;
  facts->signatures = Listed(RecognizeDisk(*subject.file));
  subject.format = ChooseFormat(*subject.file, facts->signatures, &subject.damaged_header);
  if (subject.format == nullptr) {
    if (const Signature* container = FirstOf(facts->signatures, ContentKind::kContainer)) {
      facts->kind = FileKind::kImage;
      facts->format = container->name;
    } else if (!facts->trouble.empty()) {
      facts->kind = FileKind::kUnreadable;
    }
    return subject;
  }
  facts->kind = FileKind::kImage;
  facts->format = subject.format->name;
  facts->examined = true;
  auto rows = subject.format->inspect(*subject.file, found.path);
  if (!rows) {
    facts->trouble = rows.error().message;
    subject.format = nullptr;
    return subject;
  }
  subject.rows = std::move(*rows);
  DescribeRows(*subject.rows, facts);
  if (subject.format->name != "raw") {
    facts->guest_signatures = GuestSignatures(*subject.file, *subject.format);
  }
  return subject;
}

}  // namespace imgfsck
