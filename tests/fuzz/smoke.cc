// SPDX-License-Identifier: Apache-2.0
// The fuzz targets without a fuzzer: seeds, kept crashers and a seeded number of mutants of each.
//
//   fuzz_smoke --list
//   fuzz_smoke TARGET RUNS [SEED]      mutants SEED, SEED + 1 …; each depends on its number alone
//   fuzz_smoke TARGET --file FILE...   these inputs
//   fuzz_smoke TARGET --seeds FOLDER   writes the seeds, for the fuzzer
//
// An input that breaks a promise is left in FOLDER/TARGET.crash (IMGFSCK_CRASHES, else .).
#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>

#include "tests/fuzz/targets.h"

namespace imgfsck::fuzz {
namespace {

constexpr unsigned kSeconds = 60;  // that one input may take

const ByteVector* running = nullptr;
char crash_path[4096];

void Keep(int signal) {
  if (running != nullptr) {
    if (FILE* file = std::fopen(crash_path, "wb"); file != nullptr) {
      std::fwrite(running->data(), 1, running->size(), file);
      std::fclose(file);
    }
  }
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

void RunOne(const Target& target, const ByteVector& input) {
  running = &input;
  alarm(kSeconds);
  target.run(target.format, input);
  alarm(0);
  running = nullptr;
}

void RunFile(const Target& target, const char* path) {
  std::ifstream in(path, std::ios::binary);
  IMG_CHECK(in.good());
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  RunOne(target, {AsBytes(text).begin(), AsBytes(text).end()});
}

void WriteSeeds(const Target& target, const std::string& folder) {
  int number = 0;
  for (const Seed& seed : target.seeds(target.format)) {
    std::ofstream out(fmt::format("{}/{}-{}", folder, target.name, number++), std::ios::binary);
    out << AsText(seed.bytes);
    IMG_CHECK(out.good());
  }
}

void RunMutants(const Target& target, uint64_t runs, uint64_t first) {
  const std::vector<Seed> seeds = target.seeds(target.format);
  for (const Seed& seed : seeds) RunOne(target, seed.bytes);
  for (uint64_t number = first; number < first + runs && !seeds.empty(); ++number) {
    std::mt19937_64 random(number * 0x9E3779B97F4A7C15);
    ByteVector input = seeds[random() % seeds.size()].bytes;
    Mutate(target, &input, random);
    RunOne(target, input);
  }
  fmt::print("{}: {} seeds, {} mutants\n", target.name, seeds.size(), runs);
}

int Run(int argc, char** argv) {
  const std::vector<Target> targets = AllTargets();
  const std::string wanted = argc > 1 ? argv[1] : "";
  if (wanted == "--list") {
    for (const Target& target : targets) fmt::print("{}\n", target.name);
    return 0;
  }
  const char* folder = std::getenv("IMGFSCK_CRASHES");
  for (const Target& target : targets) {
    if (target.name != wanted || argc < 3) continue;
    fmt::format_to_n(crash_path, sizeof crash_path - 1, "{}/{}.crash",
                     folder == nullptr ? "." : folder, target.name);
    for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM}) {
      std::signal(signal, Keep);
    }
    if (std::strcmp(argv[2], "--seeds") == 0 && argc == 4) {
      WriteSeeds(target, argv[3]);
    } else if (std::strcmp(argv[2], "--file") == 0) {
      for (int i = 3; i < argc; ++i) RunFile(target, argv[i]);
    } else {
      RunMutants(target, std::strtoull(argv[2], nullptr, 10),
                 argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 1);
    }
    return 0;
  }
  fmt::print(stderr, "fuzz_smoke: no target '{}'\n", wanted);
  return 16;
}

}  // namespace
}  // namespace imgfsck::fuzz

int main(int argc, char** argv) { return imgfsck::fuzz::Run(argc, argv); }
