// SPDX-License-Identifier: Apache-2.0
// Walks the mapping of a parsed image in guest order, and offers it as rows of the model. Reads one
// L2 table at a time; never stops at damage.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "formats/qcow1/image.h"
#include "model/rows.h"

namespace imgfsck::qcow1 {

// Guest bytes with one fate, not yet merged with their neighbours.
struct Extent {
  uint64_t guest_offset = 0, length = 0;
  Entry entry;         // empty: nothing mapped
  uint32_t flags = 0;  // kMapping…
  MappingState state = MappingState::kUnallocated;
};

// Yields every extent of [begin, end) of the disk in ascending order, without gaps.
class ExtentWalker {
 public:
  ExtentWalker(const Image& image, uint64_t begin, uint64_t end);
  // False at the end.
  Result<bool> Next(Extent* extent);

 private:
  Extent Unmapped(uint64_t to, uint32_t flags);
  Extent Mapped(uint64_t cluster_end);
  const Image& image_;
  uint64_t at_, end_;
  size_t slot_ = 0;           // the first slot not passed
  size_t loaded_ = SIZE_MAX;  // the slot whose table is in entries_
  std::vector<uint64_t> entries_;
  std::vector<HostRange> bad_;
};

// The image's rows. `image` stays owned by the rows.
std::unique_ptr<ImageRows> MakeRows(std::unique_ptr<Image> image, std::string path);
// What MakeRows was given.
const Image& ImageOf(const ImageRows& rows);

// L2 tables that can be read, by ascending offset; slots that share a table come together.
struct TableUse {
  uint64_t offset = 0;
  size_t slot = 0;  // index into Image::l1
};
std::vector<TableUse> TablesByOffset(const Image& image);

std::unique_ptr<RowCursor<MappingRow>> MappingCursor(const Image& image, const RowQuery& query);
std::unique_ptr<RowCursor<RegionRow>> RegionCursor(const Image& image, const RowQuery& query);
std::vector<FieldRow> FieldRows(const Image& image);

}  // namespace imgfsck::qcow1
