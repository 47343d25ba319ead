// SPDX-License-Identifier: Apache-2.0
#include "repair/qcow1/editor.h"

#include <algorithm>

namespace imgfsck::qcow1 {

Editor::Editor(const PassContext& context) : context_(context), state_(StateOf(context.report)) {
  const std::string& passphrase = context.options.check.passphrase;
  if (image().encrypted() && !passphrase.empty()) aes_.emplace(passphrase);
}

bool Editor::Mends(Problem problem) const {
  return Found(problem) && Allowed(problem, context_.options);
}

uint64_t Editor::NextPlace(uint64_t alignment) const {
  return AlignUp(std::max(context_.image.Size(), state_.cut_end), alignment);
}

bool Editor::CanAppend(uint64_t length) const {
  uint64_t at = NextPlace(image().geometry.cluster_size);
  return !state_.beyond.Covers(at, SaturatingAdd(at, length));
}

Result<uint64_t> Editor::Append(Bytes bytes, uint64_t alignment) {
  uint64_t at = NextPlace(alignment);
  IMG_RETURN_IF_ERROR(context_.image.WriteAt(at, bytes));
  return at;
}

Result<uint64_t> Editor::AppendZeros(uint64_t length, uint64_t alignment) {
  uint64_t at = NextPlace(alignment);
  IMG_RETURN_IF_ERROR(context_.image.SetSize(at + length));
  return at;
}

Result<uint64_t> Editor::AppendCopy(uint64_t offset, uint64_t length, uint64_t alignment) {
  ByteVector copy(length);
  IMG_RETURN_IF_ERROR(ReadPadded(context_.image, offset, copy));
  return Append(copy, alignment);
}

Result<uint64_t> Editor::AppendCluster(uint64_t guest, MutableBytes cluster) {
  if (aes_) IMG_RETURN_IF_ERROR(aes_->Encrypt(guest, cluster));
  return Append(cluster, image().geometry.cluster_size);
}

void Editor::DeclareSector(uint64_t offset) {
  if (declared_ == offset) return;
  declared_ = offset;
  const auto& claims = state_.conflicts;
  // No claim of guest data is longer than a cluster.
  uint64_t cluster = image().geometry.cluster_size;
  auto claim = std::lower_bound(claims.begin(), claims.end(), offset - std::min(offset, cluster),
                                [](const Claim& c, uint64_t at) { return c.begin < at; });
  for (; claim != claims.end() && claim->begin < offset + kSector; ++claim) {
    if (claim->metadata() || claim->end <= offset) continue;
    GuestRange range = ClusterRange(image(), claim->guest);
    if (claim->kind == ClaimKind::kData && claim->begin <= offset) {
      uint64_t skip = offset - claim->begin;
      if (skip >= range.length) continue;
      range = MakeGuestRange(claim->guest + skip, std::min(kSector, range.length - skip));
    }
    Changed(range, false);
  }
}

Status Editor::Overwrite(uint64_t offset, Bytes bytes) {
  uint64_t last = AlignDown(offset + bytes.size() - 1, kSector);
  for (uint64_t at = AlignDown(offset, kSector); at <= last; at += kSector) DeclareSector(at);
  ++outcome_.changes;
  return context_.image.WriteAt(offset, bytes);
}

Status Editor::SetL1(uint64_t index, uint64_t value) {
  uint8_t bytes[8];
  StoreL1(image(), bytes, value);
  return Overwrite(image().L1EntryOffset(index), bytes);
}

Status Editor::SetEntry(uint64_t host_offset, Entry entry) {
  uint8_t bytes[8];
  StoreBe(bytes, entry.raw);
  return Overwrite(host_offset, bytes);
}

Status Editor::SetHeader(const Header& header) {
  uint8_t bytes[kHeaderLength];
  EncodeHeader(header, bytes);
  return Overwrite(0, bytes);
}

void Editor::Changed(GuestRange range, bool lost) {
  if (range.length == 0) return;
  auto add = [&](std::vector<LayerRange>* ranges) {
    if (!ranges->empty() && ranges->back().guest.end() == range.offset.value) {
      ranges->back().guest.length += range.length;
    } else {
      ranges->push_back({std::string(kActiveLayer), range});
    }
  };
  add(&outcome_.changed);
  if (lost) add(&outcome_.lost);
}

}  // namespace imgfsck::qcow1
