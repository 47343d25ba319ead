// SPDX-License-Identifier: Apache-2.0
// imgio compare: whether two images read the same. Where one is shorter, the rest of the other has
// to be zeros, unless sizes must be equal, too.
#include <fmt/format.h>

#include <algorithm>

#include "base/checked.h"
#include "base/interrupt.h"
#include "base/parallel.h"
#include "base/text.h"
#include "tools/imgio/commands.h"
#include "tools/imgio/copy.h"
#include "tools/imgio/pipeline.h"

namespace imgfsck {
namespace {

constexpr uint64_t kPiece = 2 * kMiB;
constexpr int kDiffer = 1;  // as for cmp and qemu-img

struct Piece {
  ByteVector left, right;
  std::optional<uint64_t> difference;  // offset of the first
};

// Zeros behind the end.
Status ReadUpTo(Driver& driver, uint64_t offset, MutableBytes buffer) {
  uint64_t size = driver.VirtualSize();
  size_t inside = offset < size ? std::min<uint64_t>(buffer.size(), size - offset) : 0;
  std::ranges::fill(buffer.subspan(inside), uint8_t{0});
  return inside == 0 ? Ok() : driver.Read(offset, buffer.first(inside));
}

bool ZeroUpTo(Driver& driver, uint64_t offset, uint64_t length) {
  uint64_t size = driver.VirtualSize();
  return offset >= size || KnownZero(driver, offset, std::min(length, size - offset));
}

Status ComparePiece(Driver& left, Driver& right, uint64_t offset, uint64_t length, Piece& piece) {
  IMG_RETURN_IF_ERROR(CheckStop());
  piece.difference.reset();
  if (ZeroUpTo(left, offset, length) && ZeroUpTo(right, offset, length)) return Ok();
  piece.left.resize(length);
  piece.right.resize(length);
  IMG_RETURN_IF_ERROR(ReadUpTo(left, offset, piece.left));
  IMG_RETURN_IF_ERROR(ReadUpTo(right, offset, piece.right));
  if (std::memcmp(piece.left.data(), piece.right.data(), length) == 0) return Ok();
  auto at = std::ranges::mismatch(piece.left, piece.right);
  piece.difference = offset + static_cast<uint64_t>(at.in1 - piece.left.begin());
  return Ok();
}

}  // namespace

Result<int> CompareCommand(const ImgioOptions& o) {
  IMG_ASSIGN_OR_RETURN(auto first, OpenChain(o, o.words[0], {}));
  // -f is the first image's format only.
  ImgioOptions second_options = o;
  second_options.format.clear();
  IMG_ASSIGN_OR_RETURN(auto second, OpenChain(second_options, o.words[1], {}, o.second_format));
  Driver &left = first->driver(), &right = second->driver();
  if (o.strict && left.VirtualSize() != right.VirtualSize()) {
    if (!o.quiet)
      fmt::print("The sizes differ: {} and {}\n", left.VirtualSize(), right.VirtualSize());
    return kDiffer;
  }
  const uint64_t size = std::max(left.VirtualSize(), right.VirtualSize());
  Progress progress("imgio", o.progress);
  progress.Start(o.words[0]);
  std::optional<uint64_t> difference;
  Pipeline<Piece> pipeline;
  // The first difference ends it, as an error would.
  auto status = pipeline.Run(
      DivRoundUp(size, kPiece), o.threads > 0 ? o.threads : UsableCores(),
      [&](uint64_t item, Piece& piece) {
        uint64_t offset = item * kPiece;
        return ComparePiece(left, right, offset, std::min(kPiece, size - offset), piece);
      },
      [&](uint64_t item, Piece& piece) -> Status {
        progress.Update("compared", item * kPiece, size);
        if (!piece.difference) return Ok();
        difference = piece.difference;
        return Error{ErrorCode::kConflict, "different", {}};
      });
  progress.Clear();
  if (difference) {
    if (!o.quiet) fmt::print("The contents differ at offset {}\n", *difference);
    return kDiffer;
  }
  IMG_RETURN_IF_ERROR(status);
  if (!o.quiet) fmt::print("The images are identical\n");
  return 0;
}

}  // namespace imgfsck
