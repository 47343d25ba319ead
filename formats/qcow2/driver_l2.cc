// SPDX-License-Identifier: Apache-2.0
#include "formats/qcow2/driver_l2.h"

#include <fmt/format.h>

#include <algorithm>

namespace imgfsck::qcow2 {

L2Cache::L2Cache(DriverFile* file, const Geometry& g, uint64_t limit_bytes)
    : file_(file), geometry_(g), limit_(std::max<uint64_t>(8, limit_bytes / g.cluster_size)) {}

Result<std::shared_ptr<L2Table>> L2Cache::Get(uint64_t offset) {
  {
    std::lock_guard lock(mutex_);
    auto found = tables_.find(offset);
    if (found != tables_.end()) {
      found->second->used_ = ++clock_;
      return found->second;
    }
  }
  if (!IsAligned(offset, geometry_.cluster_size) || offset >= file_->Size()) {
    return Error{ErrorCode::kInvalid, fmt::format("no L2 table can be at {:#x}", offset), offset};
  }
  auto table = std::make_shared<L2Table>(geometry_, offset);
  IMG_RETURN_IF_ERROR(file_->Read(offset, table->bytes_));
  std::lock_guard lock(mutex_);
  Evict();
  auto [at, inserted] = tables_.emplace(offset, std::move(table));
  at->second->used_ = ++clock_;
  return at->second;
}

std::shared_ptr<L2Table> L2Cache::Make(uint64_t offset, const L2Table* from) {
  auto table = std::make_shared<L2Table>(geometry_, offset);
  if (from != nullptr) table->bytes_ = from->bytes_;
  table->dirty_ = true;
  std::lock_guard lock(mutex_);
  Evict();
  table->used_ = ++clock_;
  tables_[offset] = table;
  return table;
}

void L2Cache::Drop(uint64_t offset) {
  std::lock_guard lock(mutex_);
  tables_.erase(offset);
}

bool L2Cache::HasDirty() const {
  std::lock_guard lock(mutex_);
  return std::ranges::any_of(tables_, [](const auto& item) { return item.second->dirty_; });
}

bool L2Cache::TooManyDirty() const {
  std::lock_guard lock(mutex_);
  // A flush leaves clean tables, which Evict() can drop: the map's size says enough.
  return tables_.size() > limit_ &&
         static_cast<size_t>(std::ranges::count_if(
             tables_, [](const auto& item) { return item.second->dirty_; })) > limit_ / 2;
}

Status L2Cache::WriteDirty() {
  std::vector<L2Table*> dirty;
  {
    std::lock_guard lock(mutex_);
    for (auto& [offset, table] : tables_) {
      if (table->dirty_) dirty.push_back(table.get());
    }
  }
  std::ranges::sort(dirty, {}, [](const L2Table* table) { return table->offset_; });
  for (L2Table* table : dirty) {
    IMG_RETURN_IF_ERROR(file_->Write(table->offset_, table->bytes_));
    table->dirty_ = false;
  }
  return Ok();
}

void L2Cache::Evict() {
  if (tables_.size() < limit_) return;
  std::vector<uint64_t> ages;
  for (const auto& [offset, table] : tables_) {
    // A table that somebody holds may be about to change.
    if (!table->dirty_ && table.use_count() == 1) ages.push_back(table->used_);
  }
  if (ages.empty()) return;
  auto middle = ages.begin() + static_cast<ptrdiff_t>(ages.size() / 2);
  std::ranges::nth_element(ages, middle);
  std::erase_if(tables_, [&](const auto& item) {
    return !item.second->dirty_ && item.second.use_count() == 1 && item.second->used_ <= *middle;
  });
}

}  // namespace imgfsck::qcow2
