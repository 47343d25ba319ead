// SPDX-License-Identifier: Apache-2.0
// What is fuzzed: every target takes bytes, hands them to one part of the product and aborts when a
// promise is broken. Nothing here knows who makes the bytes up (libfuzzer.cc, smoke.cc).
#pragma once

#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "tests/fuzz/seeds.h"

namespace imgfsck::fuzz {

struct Target {
  std::string name;      // "qcow2-repair", "undo-record" …
  const Format* format;  // of the images that it takes; null: bytes of another kind
  void (*run)(const Format* format, Bytes bytes);
  std::vector<Seed> (*seeds)(const Format* format);
};

std::vector<Target> AllTargets();

// One more input like this one; images are damaged where it hurts.
void Mutate(const Target& target, ByteVector* bytes, std::mt19937_64& random);

// The parts that AllTargets() is put together from.
void AddImageTargets(std::vector<Target>* targets);
void AddRecordTargets(std::vector<Target>* targets);

// Ends the process with a message unless `good`.
void Require(bool good, std::string_view promise);

}  // namespace imgfsck::fuzz
