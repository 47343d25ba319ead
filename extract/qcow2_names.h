// SPDX-License-Identifier: Apache-2.0
// Takes names and paths, and what identifies a key, out of a copy of a qcow2 image. Does nothing
// unless the options ask for it. Lengths stay, so every structure keeps its place.
#pragma once

#include "analyzers/qcow2/state.h"
#include "extract/selection.h"

namespace imgfsck::qcow2 {

class Qcow2Names {
 public:
  Qcow2Names(Selection& selection, const CheckState& state)
      : selection_(selection), state_(state), image_(*state.image) {}

  void RedactListed();  // everything that the header leads to
  void Redact(const Snapshot& snapshot);
  void Redact(const Bitmap& bitmap);
  void RedactLuks(uint64_t offset);
  void RedactHead(uint64_t length);  // of a header that makes no sense: all behind its fields

 private:
  bool wanted() const { return selection_.options.redact; }
  void RedactFirstCluster();
  void RedactSnapshots();
  void RedactBitmaps();
  // Bytes of a directory that could not be taken apart.
  void RedactRest(uint64_t begin, uint64_t end);

  // Not where damage laid another structure over it.
  void Replace(uint64_t offset, Bytes bytes);

  Selection& selection_;
  const CheckState& state_;
  const Image& image_;
};

}  // namespace imgfsck::qcow2
