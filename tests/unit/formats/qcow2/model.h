// SPDX-License-Identifier: Apache-2.0
// A qcow2 disk as it should be: plain bytes in memory, its snapshots, its bitmaps. Random
// operations are done to it and to a driver alike.
#pragma once

#include <map>
#include <random>
#include <set>
#include <string>

#include "formats/driver.h"

namespace imgfsck::qcow2 {

class Model {
 public:
  struct Saved {
    ByteVector disk;
  };
  struct Limits {
    bool compress = true, snapshots = true, bitmaps = true, resize = true;
    uint64_t largest = 0;          // disk size in bytes
    bool discard_is_hint = false;  // discarding may do nothing, and does
  };
  // `base`: what unallocated ranges of the new image read; may be empty.
  Model(uint64_t size, const ByteVector& base, Limits limits, uint64_t seed);

  // One random operation on both; the status is the driver's (the model has changed if it is fine).
  Status Step(Driver& driver);
  // What the driver reads, of the disk and of its bitmaps, is what it should be.
  std::string Differences(Driver& driver);

  ByteVector disk;
  std::map<std::string, Saved> snapshots;  // by name
  struct ModelBitmap {
    std::set<uint64_t> dirty;  // bit numbers
    uint64_t granularity = 0;
    bool enabled = true;
  };
  std::map<std::string, ModelBitmap> bitmaps;
  std::string last;  // what the last step was

 private:
  uint64_t Random(uint64_t below) { return below == 0 ? 0 : random_() % below; }
  GuestRange RandomRange(uint64_t longest);
  void Mark(uint64_t offset, uint64_t length);
  Status Write(Driver& driver);
  Status Compress(Driver& driver);
  Status Zero(Driver& driver, bool discard);
  Status Snapshot(Driver& driver);
  Status Bitmap(Driver& driver);
  Status Resize(Driver& driver);

  ByteVector base_;
  Limits limits_;
  std::mt19937_64 random_;
  uint64_t names_ = 0;
};

}  // namespace imgfsck::qcow2
