// SPDX-License-Identifier: Apache-2.0
#include "io/fault.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "base/checked.h"

namespace imgfsck {
namespace {

constexpr uint64_t kLargest = 4 * kGiB;  // bytes; it all lies in memory

Error Failure(std::string_view what, std::optional<uint64_t> offset) {
  return Error{ErrorCode::kIo, fmt::format("injected failure: {}", what), offset};
}

// So many bytes of a write that is cut between two sectors.
uint64_t HalfOfSectors(uint64_t offset, uint64_t length) {
  const uint64_t boundary = AlignDown(offset + length / 2, kSector);
  return boundary > offset ? boundary - offset : 0;
}

void Put(ByteVector* disk, uint64_t offset, Bytes bytes) {
  if (disk->size() < offset + bytes.size()) disk->resize(offset + bytes.size());
  std::ranges::copy(bytes, disk->begin() + static_cast<ptrdiff_t>(offset));
}

}  // namespace

FaultStore::FaultStore(ByteVector initial, FaultPlan plan)
    : durable_(std::move(initial)), current_(durable_), plan_(plan) {}

bool FaultStore::Hit(FaultPlan::Kind kind, uint64_t count) const {
  if (plan_.kind != kind || plan_.at != count) return false;
  fired_ = true;
  return true;
}

uint64_t FaultStore::Size() const { return current_.size(); }

Result<size_t> FaultStore::ReadAt(uint64_t offset, MutableBytes buffer) const {
  if (crashed_) return Failure("the machine has stopped", offset);
  if (Hit(FaultPlan::Kind::kRead, ++reads_)) return Failure("read", offset);
  if (offset >= current_.size()) return size_t{0};
  const size_t length = std::min<uint64_t>(buffer.size(), current_.size() - offset);
  std::copy_n(current_.data() + offset, length, buffer.data());
  return length;
}

// What may happen to a WriteAt or a SetSize alike.
Status FaultStore::BeforeWrite(const Pending& write) {
  if (crashed_) return Failure("the machine has stopped", write.offset);
  const uint64_t end = SaturatingAdd(write.offset, write.bytes.size());
  ++writes_;
  if (end > kLargest || Hit(FaultPlan::Kind::kNoSpace, writes_)) {
    return Error{ErrorCode::kNoSpace, "injected failure: no space", write.offset};
  }
  if (Hit(FaultPlan::Kind::kCrash, writes_)) {
    pending_.push_back(write);
    Crash();
    if (partner_ != nullptr) partner_->Crash();
    return Failure("the machine stops", write.offset);
  }
  return Ok();
}

Status FaultStore::WriteAt(uint64_t offset, Bytes bytes) {
  Pending write{offset, {bytes.begin(), bytes.end()}, false};
  IMG_RETURN_IF_ERROR(BeforeWrite(write));
  ++plain_writes_;
  if (Hit(FaultPlan::Kind::kWrite, plain_writes_)) return Failure("write", offset);
  const bool torn = Hit(FaultPlan::Kind::kTornWrite, plain_writes_);
  const bool cut = torn || Hit(FaultPlan::Kind::kShortWrite, plain_writes_);
  if (cut) write.bytes.resize(torn ? HalfOfSectors(offset, bytes.size()) : bytes.size() / 2);
  if (!write.bytes.empty()) Put(&current_, offset, write.bytes);
  const uint64_t written = write.bytes.size();
  pending_.push_back(std::move(write));
  return cut ? Status(Failure("short write", offset + written)) : Ok();
}

Status FaultStore::SetSize(uint64_t size) {
  Pending write{size, {}, true};
  IMG_RETURN_IF_ERROR(BeforeWrite(write));
  if (Hit(FaultPlan::Kind::kTruncate, ++truncates_)) return Failure("set the length", size);
  current_.resize(size);
  pending_.push_back(std::move(write));
  return Ok();
}

Status FaultStore::Sync() {
  if (crashed_) return Failure("the machine has stopped", {});
  if (Hit(FaultPlan::Kind::kSync, ++syncs_)) return Failure("sync", {});
  for (const Pending& write : pending_) {
    if (write.truncate) {
      durable_.resize(write.offset);
    } else if (!write.bytes.empty()) {
      Put(&durable_, write.offset, write.bytes);
    }
  }
  pending_.clear();
  return Ok();
}

void FaultStore::Crash() {
  crashed_ = true;
  if (plan_.unsynced == FaultPlan::Unsynced::kLose) return;
  if (plan_.unsynced == FaultPlan::Unsynced::kKeep) {
    durable_ = current_;
    return;
  }
  std::mt19937_64 random(plan_.seed);
  const auto coin = [&random] { return (random() & 1) != 0; };
  for (const Pending& write : pending_) {
    if (coin()) continue;  // lost as a whole
    if (write.truncate) {
      durable_.resize(write.offset);
      continue;
    }
    const bool whole = coin();
    for (uint64_t at = 0; at < write.bytes.size();) {
      const uint64_t sector_end = AlignDown(write.offset + at, kSector) + kSector;
      const uint64_t length = std::min(write.bytes.size() - at, sector_end - write.offset - at);
      if (whole || coin())
        Put(&durable_, write.offset + at, Bytes(write.bytes).subspan(at, length));
      at += length;
    }
  }
}

const ByteVector& FaultStore::Survivor() const { return crashed_ ? durable_ : current_; }

}  // namespace imgfsck
