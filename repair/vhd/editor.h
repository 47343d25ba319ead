// SPDX-License-Identifier: Apache-2.0
// What repair passes of VHDs write with: table entries, headers, footers and fresh space, in an
// overlay. Fresh space is taken behind everything that is there; the footer moves behind it in the
// same breath, so that the file is whole after every step.
#pragma once

#include <initializer_list>
#include <vector>

#include "analyzers/vhd/state.h"
#include "repair/pass.h"

namespace imgfsck::vhd {

class Editor {
 public:
  explicit Editor(const PassContext& context);

  const Image& image() const { return image_; }
  const CheckState& state() const { return state_; }
  Overlay& overlay() { return overlay_; }
  const RepairOptions& options() const { return options_; }

  // Some finding of this kind may be mended.
  bool Asked(Problem problem) const;
  bool AskedAny(std::initializer_list<Problem> problems) const;
  // --fix named it.
  bool AskedByName(Problem problem) const { return options_.also_fix.contains(problem); }
  // The findings of this kind that were kept and may be mended.
  std::vector<const Finding*> FindingsOf(Problem problem) const;
  // Says that the guest bytes of these findings are right after all.
  void Settle(Problem problem, PassOutcome* outcome) const;

  Status Write(uint64_t offset, Bytes bytes) { return overlay_.WriteAt(offset, bytes); }
  Status Fill(uint64_t offset, uint64_t length, uint8_t byte);
  Status WriteEntry(uint64_t index, uint32_t sector);
  Status WriteHeader(DynHeader header);
  // At its place in front (sparse disks) and where the trailing one stands, if that is a place for
  // it. False when both were that already.
  Result<bool> WriteFooters(Footer footer);
  // Something like a trailing footer stands where a footer may stand: clear of all blocks.
  bool TrailingInPlace() const;

  // There is a footer sound enough to be written elsewhere.
  bool FooterTrusted() const;
  // Writes the footer at `offset` and ends the file behind it.
  Status EndFileWith(Footer footer, uint64_t offset);
  // `length` bytes, a multiple of 512, that nothing uses and that read as zeros. The footer stands
  // behind them. kConflict when no footer can be trusted, kTooLarge at the format's limit.
  Result<uint64_t> Append(uint64_t length);
  // Copies as it read before this pass, holes left out, to a range that reads as zeros.
  Status Copy(uint64_t from, uint64_t to, uint64_t length);
  // The same for block `index` at `from`, as it read before any pass when the table said so then:
  // metadata that a block lies over may have been mended since.
  Status CopyBlock(uint64_t index, uint64_t from, uint64_t to);

 private:
  Status CopyFrom(const ByteSource& source, uint64_t from, uint64_t to, uint64_t length);

  Overlay& overlay_;
  const CheckReport& report_;
  const CheckState& state_;
  const Image& image_;
  const Image& first_;  // before any pass
  const RepairOptions& options_;
  uint64_t end_;  // where fresh space begins
};

// A guest range of the disk itself.
inline LayerRange OfDisk(GuestRange guest) { return {std::string(kActiveLayer), guest}; }

}  // namespace imgfsck::vhd
