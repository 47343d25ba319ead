// SPDX-License-Identifier: Apache-2.0
// SHA-256 of bytes that come piece by piece.
#pragma once

#include <memory>
#include <string>

#include "base/bytes.h"

namespace imgfsck {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void Add(Bytes bytes);
  void AddNumber(uint64_t number);  // as eight little-endian bytes
  std::string HexDigest();          // once; nothing may be added afterwards

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

std::string HexSha256(Bytes bytes);

}  // namespace imgfsck
