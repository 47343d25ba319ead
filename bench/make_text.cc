// SPDX-License-Identifier: Apache-2.0
// Writes so many bytes of made-up text that compresses about 2:1, the same every time: words of a
// small vocabulary, every third one of random letters. No two clusters are alike.
#include <array>
#include <cstdint>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

namespace {

std::string RandomWord(std::mt19937_64& random) {
  std::string word(3 + random() % 9, ' ');
  for (char& letter : word) letter = static_cast<char>('a' + random() % 26);
  return word + " ";
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: make_text MEBIBYTES FILE\n");
    return 16;
  }
  std::FILE* file = std::fopen(argv[2], "wb");
  if (file == nullptr) return 8;
  std::mt19937_64 random(1);
  std::vector<std::string> vocabulary(1024);
  for (std::string& word : vocabulary) word = RandomWord(random);
  uint64_t left = std::stoull(argv[1]) << 20;
  std::string text;
  while (left > 0) {
    text.clear();
    while (text.size() < (1 << 20)) {
      text += vocabulary[random() % vocabulary.size()];
      text += vocabulary[random() % vocabulary.size()];
      text += RandomWord(random);
    }
    const size_t step = left < text.size() ? static_cast<size_t>(left) : text.size();
    if (std::fwrite(text.data(), 1, step, file) != step) return 8;
    left -= step;
  }
  return std::fclose(file) == 0 ? 0 : 8;
}
