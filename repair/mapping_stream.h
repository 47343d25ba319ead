// SPDX-License-Identifier: Apache-2.0
// One layer's mapping rows, one at a time, consumable in part.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "model/rows.h"

namespace imgfsck {

class MappingStream {
 public:
  MappingStream(const ImageRows& rows, const std::string& layer) : layer_(layer) {
    RowQuery query;
    query.layer = layer;
    cursor_ = rows.Mappings(query);
  }

  // The row in front; null at the end.
  Result<const MappingRow*> Current() {
    while (at_ >= batch_.size()) {
      if (!cursor_) return nullptr;
      IMG_RETURN_IF_ERROR(cursor_->NextBatch(&batch_));
      at_ = 0;
      if (batch_.empty()) {
        cursor_.reset();
      } else {
        SkipOthers();
      }
    }
    return &batch_[at_];
  }

  // Takes `length` bytes, at most all, off the row in front.
  void Consume(uint64_t length) {
    MappingRow& row = batch_[at_];
    row.guest_offset += length;
    row.length -= std::min(length, row.length);
    if (row.host_offset && row.state != MappingState::kCompressed) *row.host_offset += length;
    if (row.length > 0) return;
    last_end_ = row.guest_offset;
    ++at_;
    SkipOthers();
  }

  // Counts the disks of this name that came before: two snapshots may claim one id.
  uint64_t part() const { return part_; }

 private:
  void SkipOthers() {
    while (at_ < batch_.size() && (batch_[at_].layer != layer_ || batch_[at_].length == 0)) ++at_;
    if (at_ < batch_.size() && batch_[at_].guest_offset < last_end_) {
      ++part_;
      last_end_ = 0;
    }
  }

  std::string layer_;
  std::unique_ptr<RowCursor<MappingRow>> cursor_;
  std::vector<MappingRow> batch_;
  size_t at_ = 0;
  uint64_t last_end_ = 0, part_ = 0;
};

}  // namespace imgfsck
