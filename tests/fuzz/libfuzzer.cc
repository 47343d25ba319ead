// SPDX-License-Identifier: Apache-2.0
// A fuzz target for libFuzzer. IMGFSCK_TARGET says which; scripts/fuzz.sh runs them all.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tests/fuzz/targets.h"

namespace imgfsck::fuzz {
namespace {

const Target& Chosen() {
  static const Target target = [] {
    const char* wanted = std::getenv("IMGFSCK_TARGET");
    for (Target& candidate : AllTargets()) {
      if (wanted != nullptr && candidate.name == wanted) return candidate;
    }
    std::fprintf(stderr, "IMGFSCK_TARGET names no target; fuzz_smoke --list does\n");
    std::exit(16);
  }();
  return target;
}

}  // namespace
}  // namespace imgfsck::fuzz

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace imgfsck::fuzz;
  Chosen().run(Chosen().format, {data, size});
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned int seed) {
  using namespace imgfsck::fuzz;
  std::mt19937_64 random(seed);
  // What the fuzzer learnt from comparisons is worth something, too.
  if (random() % 4 == 0) return LLVMFuzzerMutate(data, size, max_size);
  imgfsck::ByteVector bytes(data, data + size);
  Mutate(Chosen(), &bytes, random);
  if (bytes.size() > max_size) bytes.resize(max_size);
  std::memcpy(data, bytes.data(), bytes.size());
  return bytes.size();
}
