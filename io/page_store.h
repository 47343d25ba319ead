// SPDX-License-Identifier: Apache-2.0
// Numbered pages of 4 KiB, kept in memory up to a limit and beyond it in an unlinked file. What an
// Overlay keeps its changes in; it knows nothing of what the pages mean.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace imgfsck {

class PageStore {
 public:
  static constexpr size_t kPage = 4096;  // bytes

  // `spill_directory` empty: TMPDIR, else /tmp. No file is made before the limit is reached.
  PageStore(uint64_t memory_limit, std::string spill_directory);
  ~PageStore();
  PageStore(const PageStore&) = delete;
  PageStore& operator=(const PageStore&) = delete;

  size_t Count() const { return pages_.size(); }
  bool Has(uint64_t page) const { return pages_.contains(page); }
  // The first page held at or after `page`; UINT64_MAX when there is none.
  uint64_t NextHeld(uint64_t page) const;
  // The first page not held at or after `page`, or the one kMostHeld behind it: whoever asks again
  // and again in a long run must not be taken through all of it each time.
  static constexpr uint64_t kMostHeld = 512;
  uint64_t NextMissing(uint64_t page) const;

  // Part of a page that is held. Safe from several threads while nobody writes.
  Status Read(uint64_t page, size_t offset, MutableBytes buffer) const;
  Status Write(uint64_t page, size_t offset, Bytes bytes);
  // A page that is not held yet; `content` is a whole page.
  Status Insert(uint64_t page, Bytes content);
  void EraseFrom(uint64_t page);  // every page at or after this one

 private:
  struct Slot {
    std::unique_ptr<uint8_t[]> memory;  // null: in the spill file
    uint64_t spill_offset = 0;          // bytes
  };
  Status OpenSpillFile();
  Error SpillError(int os_error, const char* verb) const;

  uint64_t memory_limit_;  // bytes
  std::string spill_directory_;
  std::map<uint64_t, Slot> pages_;
  uint64_t in_memory_ = 0;  // pages
  int spill_fd_ = -1;
  uint64_t spill_end_ = 0;            // bytes of the spill file handed out
  std::vector<uint64_t> spill_free_;  // offsets given back
};

}  // namespace imgfsck
