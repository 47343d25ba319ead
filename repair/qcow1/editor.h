// SPDX-License-Identifier: Apache-2.0
// What the passes do to an overlay: new bytes at the end, single entries changed, the header
// rewritten. Remembers how much was changed; decides nothing.
#pragma once

#include <optional>
#include <string>

#include "analyzers/qcow1/state.h"
#include "formats/common/legacy_aes.h"
#include "repair/pass.h"

namespace imgfsck::qcow1 {

class Editor {
 public:
  explicit Editor(const PassContext& context);

  const Image& image() const { return *state_.image; }
  const CheckState& state() const { return state_; }
  ByteStore& bytes() { return context_.image; }
  const RepairOptions& options() const { return context_.options; }
  PassOutcome& outcome() { return outcome_; }

  bool Found(Problem problem) const { return context_.report.findings.Has(problem); }
  // Found, and the options allow mending it.
  bool Mends(Problem problem) const;

  // False while damaged entries point to where the next `length` bytes would go: they would come
  // to life there. Another pass clears them, when it may.
  bool CanAppend(uint64_t length) const;
  // Behind the file, and behind what its end cuts in two.
  Result<uint64_t> Append(Bytes bytes, uint64_t alignment);
  Result<uint64_t> AppendZeros(uint64_t length, uint64_t alignment);
  // A copy of bytes of the image (zeros past its end) at the end of it.
  Result<uint64_t> AppendCopy(uint64_t offset, uint64_t length, uint64_t alignment);
  // A guest cluster as the guest reads it, encrypted where the image is.
  Result<uint64_t> AppendCluster(uint64_t guest, MutableBytes cluster);
  // False: the image is encrypted and no passphrase was given.
  bool CanWriteGuestBytes() const { return !image().encrypted() || aes_.has_value(); }

  // Where guest data lies over what is written, the change to it is declared.
  Status SetL1(uint64_t index, uint64_t value);
  Status SetEntry(uint64_t host_offset, Entry entry);
  Status SetHeader(const Header& header);

  void Changed(GuestRange range, bool lost);
  void Note(std::string sentence) { outcome_.notes.push_back(std::move(sentence)); }
  PassOutcome Finish() { return std::move(outcome_); }

 private:
  uint64_t NextPlace(uint64_t alignment) const;
  Status Overwrite(uint64_t offset, Bytes bytes);
  void DeclareSector(uint64_t offset);
  const PassContext& context_;
  const CheckState& state_;
  std::optional<LegacyAes> aes_;
  std::optional<uint64_t> declared_;  // the sector that DeclareSector() saw last
  PassOutcome outcome_;
};

}  // namespace imgfsck::qcow1
