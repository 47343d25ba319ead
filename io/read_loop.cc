// SPDX-License-Identifier: Apache-2.0
#include "io/read_loop.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "base/checked.h"
#include "base/text.h"
#include "base/units.h"

namespace imgfsck {
namespace {

// Linux moves at most a little less than 2 GiB a call; smaller is as fast.
constexpr size_t kLargestCall = kGiB;  // bytes

// A smaller piece to try after a failure at [position, position + length): about half, ending at
// a sector boundary. 0 when the failure is already within one sector.
size_t SmallerPiece(uint64_t position, size_t length) {
  const uint64_t first_boundary = AlignDown(position, kSector) + kSector;
  if (position + length <= first_boundary) return 0;
  const uint64_t middle = AlignDown(position + length / 2, kSector);
  return Narrow<size_t>(std::max(first_boundary, middle) - position);
}

}  // namespace

Result<size_t> ReadLoop(const PreadCall& pread_call, uint64_t offset, MutableBytes buffer,
                        const std::string& path) {
  size_t done = 0;
  size_t piece = kLargestCall;
  while (done < buffer.size()) {
    const uint64_t position = offset + done;
    const size_t length = std::min(piece, buffer.size() - done);
    const ssize_t got = pread_call(buffer.data() + done, length, position);
    if (got > 0) {
      done += static_cast<size_t>(got);
      continue;
    }
    if (got == 0) break;
    if (errno == EINTR) continue;
    const int os_error = errno;
    if (os_error == EIO || os_error == ENODATA || os_error == EILSEQ) {  // a bad medium's answers
      piece = SmallerPiece(position, length);
      if (piece != 0) continue;
    }
    return ErrorFromErrno(os_error, fmt::format("{}: read at {:#x}", Printable(path), position),
                          position);
  }
  return done;
}

}  // namespace imgfsck
