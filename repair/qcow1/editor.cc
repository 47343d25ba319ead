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

Status Editor::SetL1(uint64_t index, uint64_t value) {
  uint8_t bytes[8];
  StoreL1(image(), bytes, value);
  ++outcome_.changes;
  return context_.image.WriteAt(image().L1EntryOffset(index), bytes);
}

Status Editor::SetEntry(uint64_t host_offset, Entry entry) {
  uint8_t bytes[8];
  StoreBe(bytes, entry.raw);
  ++outcome_.changes;
  return context_.image.WriteAt(host_offset, bytes);
}

Status Editor::SetHeader(const Header& header) {
  uint8_t bytes[kHeaderLength];
  EncodeHeader(header, bytes);
  ++outcome_.changes;
  return context_.image.WriteAt(0, bytes);
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
