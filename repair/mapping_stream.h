// SPDX-License-Identifier: Apache-2.0
// One layer's mapping rows, one at a time, consumable in part. Two snapshots may claim one id: the
// rows of both carry its name, those of the second after all those of the first.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "model/rows.h"

namespace imgfsck {

class MappingStream {
 public:
  // `part`: which of the layers of that name, from 0.
  MappingStream(const ImageRows& rows, const std::string& layer, uint64_t part = 0)
      : layer_(layer), wanted_(part) {
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

 private:
  void SkipOthers() {
    for (; at_ < batch_.size(); ++at_) {
      const MappingRow& row = batch_[at_];
      if (row.layer != layer_ || row.length == 0) continue;
      if (row.guest_offset < last_end_) ++part_;
      if (part_ == wanted_) return;
      last_end_ = row.guest_offset + row.length;
    }
  }

  std::string layer_;
  std::unique_ptr<RowCursor<MappingRow>> cursor_;
  std::vector<MappingRow> batch_;
  size_t at_ = 0;
  uint64_t last_end_ = 0, part_ = 0, wanted_ = 0;
};

}  // namespace imgfsck
