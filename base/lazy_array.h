// SPDX-License-Identifier: Apache-2.0
// Zero-filled arrays that cost memory only where they are written: anonymous pages without
// reservation. For per-cluster bits and counts of files whose size says little about their content.
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <utility>

#include "base/result.h"

namespace imgfsck {

template <class T>
class LazyArray {
 public:
  LazyArray() = default;
  static Result<LazyArray> Make(uint64_t size) {
    LazyArray array;
    if (size == 0) return array;
    if (size > (uint64_t{1} << 46) / sizeof(T)) {
      return Error{ErrorCode::kTooLarge, "the file has too many clusters to count", {}};
    }
    void* memory = mmap(nullptr, size * sizeof(T), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
      return Error{ErrorCode::kOutOfMemory, "not enough memory to count the file's clusters", {}};
    }
    array.data_ = static_cast<T*>(memory);
    array.size_ = size;
    return array;
  }
  LazyArray(LazyArray&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  LazyArray& operator=(LazyArray&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~LazyArray() {
    if (data_ != nullptr) munmap(data_, size_ * sizeof(T));
  }

  // For an array that will be written nearly throughout.
  void AdviseLargePages() {
    if (data_ != nullptr) madvise(data_, size_ * sizeof(T), MADV_HUGEPAGE);  // only advice
  }

  T& operator[](uint64_t i) { return data_[i]; }
  const T& operator[](uint64_t i) const { return data_[i]; }
  T* data() { return data_; }
  const T* data() const { return data_; }
  uint64_t size() const { return size_; }

 private:
  T* data_ = nullptr;
  uint64_t size_ = 0;
};

}  // namespace imgfsck
