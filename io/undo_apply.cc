// SPDX-License-Identifier: Apache-2.0
// An undo record against an image: what state the image is in, and taking it to either end. Both
// directions only write what the record says and may be repeated from any mixture of the two.
#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "io/sha256.h"
#include "io/undo_impl.h"

namespace imgfsck {
namespace {

// `b` starts with `a`.
bool Same(Bytes a, Bytes b) { return std::memcmp(a.data(), b.data(), a.size()) == 0; }

// `bytes` and zeros, as a file that ends early would read.
ByteVector Padded(const ByteVector& bytes, size_t length) {
  ByteVector padded(bytes);
  padded.resize(length);
  return padded;
}

struct Verdict {
  bool all_old = true, all_new = true, foreign = false;
};

// One patch, a sector at a time: a medium writes whole sectors, so each is of one side. Where the
// old image ends inside a sector, what lies beyond is gone only with the length, so it stands
// alone.
void ComparePatch(uint64_t offset, Bytes now, const UndoRecord::Patch& patch, Verdict* verdict) {
  const ByteVector old_bytes = Padded(patch.old_bytes, now.size());
  const ByteVector new_bytes = Padded(patch.new_bytes, now.size());
  for (size_t at = 0; at < now.size();) {
    const uint64_t sector_end = AlignDown(offset + at, kSector) + kSector;
    size_t end = std::min<uint64_t>(now.size(), sector_end - offset);
    for (size_t edge : {patch.old_bytes.size(), patch.new_bytes.size()}) {
      if (at < edge) end = std::min(end, edge);
    }
    const Bytes part = now.subspan(at, end - at);
    const bool is_old = Same(part, Bytes(old_bytes).subspan(at));
    const bool is_new = Same(part, Bytes(new_bytes).subspan(at));
    verdict->all_old &= is_old;
    verdict->all_new &= is_new;
    verdict->foreign |= !is_old && !is_new;
    at = end;
  }
}

void CompareSize(uint64_t now, uint64_t old_size, uint64_t new_size, Verdict* verdict) {
  verdict->all_old &= now == old_size;
  verdict->all_new &= now == new_size;
  verdict->foreign |= now < std::min(old_size, new_size) || now > std::max(old_size, new_size);
}

}  // namespace

Result<UndoRecord::Match> UndoRecord::Compare(const ByteSource& image) const {
  Verdict verdict;
  CompareSize(image.Size(), old_size(), new_size(), &verdict);
  if (verdict.foreign) return Match::kForeign;
  ByteVector header(impl_->header_length);  // as it was before any patch
  IMG_RETURN_IF_ERROR(ReadPadded(image, 0, header));
  ByteVector now;
  IMG_RETURN_IF_ERROR(ForEachPatch([&](const Patch& patch) -> Status {
    const size_t length = std::max(patch.old_bytes.size(), patch.new_bytes.size());
    now.resize(length);
    IMG_RETURN_IF_ERROR(ReadPadded(image, patch.offset, now));
    ComparePatch(patch.offset, now, patch, &verdict);
    if (patch.offset < header.size()) {
      const size_t overlap =
          std::min<uint64_t>(patch.old_bytes.size(), header.size() - patch.offset);
      std::copy_n(patch.old_bytes.data(), overlap, header.data() + patch.offset);
    }
    return Ok();
  }));
  if (impl_->header_length > 0 && HexSha256(header) != impl_->header_hash) {
    verdict.foreign = true;
  }
  if (verdict.foreign) return Match::kForeign;
  if (verdict.all_new) return Match::kNew;
  return verdict.all_old ? Match::kOld : Match::kMixed;
}

Status UndoRecord::WriteNew(ByteStore& image) const {
  // Growing first fails before anything was patched; shrinking last loses nothing early.
  if (image.Size() < new_size()) IMG_RETURN_IF_ERROR(image.SetSize(new_size()));
  IMG_RETURN_IF_ERROR(ForEachPatch(
      [&](const Patch& patch) { return image.WriteAt(patch.offset, patch.new_bytes); }));
  IMG_RETURN_IF_ERROR(image.Sync());
  if (image.Size() == new_size()) return Ok();
  IMG_RETURN_IF_ERROR(image.SetSize(new_size()));
  return image.Sync();
}

Status UndoRecord::WriteOld(ByteStore& image) const {
  if (image.Size() < old_size()) IMG_RETURN_IF_ERROR(image.SetSize(old_size()));
  ByteVector now;
  IMG_RETURN_IF_ERROR(ForEachPatch([&](const Patch& patch) -> Status {
    // What was not written needs no write, which on a full disk might fail.
    now.resize(patch.old_bytes.size());
    const Status read = ReadExact(image, patch.offset, now);
    if (read && std::ranges::equal(now, patch.old_bytes)) return Ok();
    return image.WriteAt(patch.offset, patch.old_bytes);
  }));
  IMG_RETURN_IF_ERROR(image.Sync());
  if (image.Size() == old_size()) return Ok();
  IMG_RETURN_IF_ERROR(image.SetSize(old_size()));
  return image.Sync();
}

}  // namespace imgfsck
