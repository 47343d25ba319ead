// SPDX-License-Identifier: Apache-2.0
// What the tests of several drivers need.
#pragma once

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "formats/format.h"

namespace imgfsck {

inline ByteVector Pattern(uint64_t seed, size_t size) {
  std::mt19937_64 random(seed);
  ByteVector bytes(size);
  for (auto& byte : bytes) byte = static_cast<uint8_t>(random() >> 3);
  return bytes;
}

inline std::unique_ptr<Driver> OpenStore(const Format& format, ByteStore& store,
                                         const std::string& passphrase = "") {
  OpenOptions options;
  options.writable = true;
  options.passphrase = passphrase;
  auto driver = format.open(store, &store, options);
  EXPECT_TRUE(driver) << (driver ? "" : driver.error().message);
  return driver ? std::move(*driver) : nullptr;
}

inline Driver::BackingReader ReaderOf(const ByteVector& base) {
  return [&base](uint64_t offset, MutableBytes buffer) -> Status {
    for (size_t i = 0; i < buffer.size(); ++i) {
      buffer[i] = offset + i < base.size() ? base[offset + i] : 0;
    }
    return Ok();
  };
}

inline ByteVector ReadAll(Driver& driver) {
  ByteVector all(driver.VirtualSize());
  Status status = driver.Read(0, all);
  EXPECT_TRUE(status) << (status ? "" : status.error().message);
  return all;
}

}  // namespace imgfsck
