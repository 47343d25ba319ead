// SPDX-License-Identifier: Apache-2.0
// Where results are written: a buffer in front of a file descriptor or a string. Fast enough for
// tens of millions of lines. The first error sticks; everything after it is discarded.
#pragma once

#include <charconv>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

namespace imgfsck {

class TextWriter {
 public:
  explicit TextWriter(int fd);  // stays open afterwards
  explicit TextWriter(std::string* out);
  TextWriter(const TextWriter&) = delete;
  TextWriter& operator=(const TextWriter&) = delete;
  ~TextWriter();  // flushes; the error is lost, so call Finish()

  void Put(char c) { *Room(1) = c, used_ += 1; }
  void Put(std::string_view text) {
    if (text.size() > kBuffer) return PutLarge(text);
    std::memcpy(Room(text.size()), text.data(), text.size());
    used_ += text.size();
  }
  void PutNumber(uint64_t value) { PutInteger(value, 10); }
  void PutSigned(int64_t value) { PutInteger(value, 10); }
  void PutHex(uint64_t value) {  // 0x1f000
    Put("0x");
    PutInteger(value, 16);
  }

  // At least `size` (up to kBuffer) free bytes, for a caller that formats in place: Advance() says
  // how many of them it filled.
  char* Room(size_t size) {
    if (kBuffer - used_ < size) Flush();
    return buffer_.get() + used_;
  }
  void Advance(size_t size) { used_ += size; }

  void Flush();
  Status Finish();  // flushes; the first error there was
  bool ok() const { return status_.has_value(); }

  static constexpr size_t kBuffer = size_t{1} << 16;

 private:
  template <class Integer>
  void PutInteger(Integer value, int base) {
    char* room = Room(20);
    used_ += static_cast<size_t>(std::to_chars(room, room + 20, value, base).ptr - room);
  }
  void PutLarge(std::string_view text);
  void WriteOut(std::string_view text);

  int fd_ = -1;
  std::string* out_ = nullptr;
  std::unique_ptr<char[]> buffer_;
  size_t used_ = 0;
  Status status_;
};

}  // namespace imgfsck
