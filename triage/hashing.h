// SPDX-License-Identifier: Apache-2.0
// Hashes of a file's bytes and of a disk's: several algorithms over one reading. Holes are not
// read. What cannot be read is hashed as zeros, and listed.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "formats/driver.h"
#include "io/byte_source.h"

namespace imgfsck {

struct HashOptions {
  bool md5 = false, sha1 = false, sha256 = false;
  bool pieces = false;  // SHA-256 of every piece of kHashPiece bytes
  unsigned threads = 1;
  // What is longer is hashed in pieces alone, of which those that are zeros cost nothing. A file of
  // a few kilobytes can claim a disk that would take days.
  uint64_t longest = UINT64_MAX;
  bool streams() const { return md5 || sha1 || sha256; }
  bool any() const { return md5 || sha1 || sha256 || pieces; }
};
// "md5,sha1,sha256,pieces"; nothing for anything else.
std::optional<HashOptions> ParseHashOptions(std::string_view text);

inline constexpr uint64_t kHashPiece = 16 * kMiB;

struct HashFacts {
  bool done = false;
  std::string trouble;                         // why it is not done, or in pieces alone
  uint64_t bytes = 0;                          // hashed
  std::map<std::string, std::string> digests;  // "sha256": hex; "pieces": SHA-256 of the pieces'
  std::vector<std::string> pieces;             // digests, in order; none when there are too many
  std::vector<HostRange> unreadable;           // in bytes of what was hashed; ascending, merged
  friend bool operator==(const HashFacts&, const HashFacts&) = default;
};

// A run of bytes that is all zero, or that has to be read.
struct HashExtent {
  uint64_t length = 0;
  bool zero = false;
};

// What is hashed: how to tell zeros without reading, and how to read. `read` fills the buffer; on
// failure it is asked again for smaller pieces, down to `unit` bytes.
struct HashSource {
  uint64_t size = 0;
  uint64_t unit = 512;
  std::function<HashExtent(uint64_t offset)> extent;
  std::function<Status(uint64_t offset, MutableBytes buffer)> read;
};
HashSource HashSourceOf(const ByteSource& file);
HashSource HashSourceOf(Driver& disk);  // of a whole chain: what no layer has is zeros

// Fails when a signal asked to stop.
Result<HashFacts> Hash(const HashSource& source, const HashOptions& options);

}  // namespace imgfsck
