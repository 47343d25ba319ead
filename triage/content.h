// SPDX-License-Identifier: Apache-2.0
// What bytes look like: containers of disk images, partition tables, file systems, and the files
// that people keep. By signatures at fixed places and a few fields that must make sense; nothing is
// decoded.
#pragma once

#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "io/byte_source.h"

namespace imgfsck {

enum class ContentKind : uint8_t {
  kContainer,  // of a disk image
  kPartitionTable,
  kFileSystem,  // or volume manager, or encrypted volume
  kFile,        // documents, programs, records of file systems …
};
std::string_view ToText(ContentKind kind);  // "container", "partition-table" …

struct ContentMatch {
  std::string_view name;  // "gpt", "ext", "vmdk" …; a literal
  ContentKind kind{};
  uint64_t offset = 0, length = 0;  // of the bytes that gave it away
};

// Reads `buffer.size()` bytes at an offset; what is not there is zeros.
using ContentReader = std::function<void(uint64_t offset, MutableBytes buffer)>;

// Everything that a disk, or a file with a disk in it, of `size` bytes is recognised as by its
// beginning and its end: containers, partition tables, file systems, in this order.
std::vector<ContentMatch> RecognizeDisk(uint64_t size, const ContentReader& read);
std::vector<ContentMatch> RecognizeDisk(const ByteSource& source);

// A piece of a disk (a cluster, a sector) by what it begins with. Nothing: nothing known.
std::optional<ContentMatch> RecognizePiece(Bytes piece);

}  // namespace imgfsck
