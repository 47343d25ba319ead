// SPDX-License-Identifier: Apache-2.0
// A page stays where it was put first: no eviction, so a read never moves anything and needs no
// lock.
#include "io/page_store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/text.h"

namespace imgfsck {
namespace {

constexpr uint64_t kNone = UINT64_MAX;

std::string SpillDirectory(std::string wanted) {
  if (!wanted.empty()) return wanted;
  const char* from_environment = std::getenv("TMPDIR");
  return from_environment != nullptr && *from_environment != '\0' ? from_environment : "/tmp";
}

}  // namespace

PageStore::PageStore(uint64_t memory_limit, std::string spill_directory)
    : memory_limit_(memory_limit), spill_directory_(SpillDirectory(std::move(spill_directory))) {}

PageStore::~PageStore() {
  if (spill_fd_ >= 0) close(spill_fd_);
}

uint64_t PageStore::NextHeld(uint64_t page) const {
  const auto it = pages_.lower_bound(page);
  return it == pages_.end() ? kNone : it->first;
}

uint64_t PageStore::NextMissing(uint64_t page) const {
  const uint64_t most = page + kMostHeld;
  for (auto it = pages_.find(page); it != pages_.end() && it->first == page && page < most; ++it) {
    ++page;
  }
  return page;
}

Error PageStore::SpillError(int os_error, const char* verb) const {
  Error error = ErrorFromErrno(
      os_error, fmt::format("{} the temporary file in {}", verb, Printable(spill_directory_)));
  // The file stands for memory. Its trouble says nothing about the image, and nothing that is tried
  // with the image instead would get any further.
  error.code = ErrorCode::kOutOfMemory;
  return error;
}

Status PageStore::OpenSpillFile() {
  if (spill_fd_ >= 0) return Ok();
  spill_fd_ = open(spill_directory_.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (spill_fd_ >= 0) return Ok();
  std::string name = spill_directory_ + "/imgfsck-XXXXXX";  // no O_TMPFILE on this file system
  spill_fd_ = mkostemp(name.data(), O_CLOEXEC);
  if (spill_fd_ < 0) return SpillError(errno, "create");
  unlink(name.c_str());
  return Ok();
}

Status PageStore::Read(uint64_t page, size_t offset, MutableBytes buffer) const {
  const auto it = pages_.find(page);
  IMG_CHECK(it != pages_.end() && offset + buffer.size() <= kPage);
  const Slot& slot = it->second;
  if (slot.memory) {
    std::memcpy(buffer.data(), slot.memory.get() + offset, buffer.size());
    return Ok();
  }
  for (size_t done = 0; done < buffer.size();) {
    const ssize_t got = pread(spill_fd_, buffer.data() + done, buffer.size() - done,
                              static_cast<off_t>(slot.spill_offset + offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return SpillError(got < 0 ? errno : EIO, "read");
    done += static_cast<size_t>(got);
  }
  return Ok();
}

Status PageStore::Write(uint64_t page, size_t offset, Bytes bytes) {
  const auto it = pages_.find(page);
  IMG_CHECK(it != pages_.end() && offset + bytes.size() <= kPage);
  const Slot& slot = it->second;
  if (slot.memory) {
    std::memcpy(slot.memory.get() + offset, bytes.data(), bytes.size());
    return Ok();
  }
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t put = pwrite(spill_fd_, bytes.data() + done, bytes.size() - done,
                               static_cast<off_t>(slot.spill_offset + offset + done));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return SpillError(put < 0 ? errno : EIO, "write");
    done += static_cast<size_t>(put);
  }
  return Ok();
}

Status PageStore::Insert(uint64_t page, Bytes content) {
  IMG_CHECK(content.size() == kPage && !Has(page));
  if ((in_memory_ + 1) * kPage <= memory_limit_) {
    Slot slot{std::make_unique_for_overwrite<uint8_t[]>(kPage), 0};
    std::memcpy(slot.memory.get(), content.data(), kPage);
    pages_.emplace(page, std::move(slot));
    ++in_memory_;
    return Ok();
  }
  IMG_RETURN_IF_ERROR(OpenSpillFile());
  const bool reuse = !spill_free_.empty();
  const uint64_t place = reuse ? spill_free_.back() : spill_end_;
  pages_.emplace(page, Slot{nullptr, place});
  if (auto status = Write(page, 0, content); !status) {
    pages_.erase(page);
    return status;
  }
  if (reuse) {
    spill_free_.pop_back();
  } else {
    spill_end_ += kPage;
  }
  return Ok();
}

void PageStore::EraseFrom(uint64_t page) {
  const auto first = pages_.lower_bound(page);
  for (auto it = first; it != pages_.end(); ++it) {
    if (it->second.memory) {
      --in_memory_;
    } else {
      spill_free_.push_back(it->second.spill_offset);
    }
  }
  pages_.erase(first, pages_.end());
}

}  // namespace imgfsck
