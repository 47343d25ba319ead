// SPDX-License-Identifier: Apache-2.0
// A guest's disk as The Sleuth Kit reads it. Its readers forget about errors, so a read never
// fails: what cannot be read is zeros, and is remembered.
#pragma once

#include <tsk/libtsk.h>

#include "triage/names/guest_names.h"

namespace imgfsck {

class TskDisk {
 public:
  explicit TskDisk(const GuestDisk& disk);
  ~TskDisk();
  TskDisk(const TskDisk&) = delete;
  TskDisk& operator=(const TskDisk&) = delete;

  TSK_IMG_INFO* get() { return &image_.info; }
  uint64_t size() const { return disk_.size; }
  // Zeros for what cannot be read.
  void Read(uint64_t offset, MutableBytes buffer);
  std::vector<GuestRange> TakeFaults();

 private:
  struct Image {
    TSK_IMG_INFO info;  // first: what the library hands back is a pointer to it
    TskDisk* owner;
  };
  static ssize_t ReadCallback(TSK_IMG_INFO* info, TSK_OFF_T offset, char* buffer, size_t size);

  const GuestDisk& disk_;
  Image image_{};
  std::vector<GuestRange> faults_;
};

}  // namespace imgfsck
