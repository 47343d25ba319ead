// SPDX-License-Identifier: Apache-2.0
// imgio compare: whether two images read the same. Where one is shorter, the rest of the other has
// to be zeros, unless sizes must be equal, too.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "base/interrupt.h"
#include "base/parallel.h"
#include "base/text.h"
#include "chain/composed.h"
#include "tools/common/terminal.h"
#include "tools/imgio/commands.h"
#include "tools/imgio/extents.h"
#include "tools/imgio/pipeline.h"

namespace imgfsck {
namespace {

constexpr uint64_t kComparePiece = 2 * kMiB;
constexpr uint64_t kStep = 256 * kKiB;  // of each image at a time: both stay in the cache
constexpr int kDiffer = 1;              // as for cmp and qemu-img

struct ComparedPiece {
  GuestRange range;
  ByteVector left, right;
  std::optional<uint64_t> difference;  // offset of the first
};

Status ComparePiece(Driver& left, Driver& right, ComparedPiece& piece) {
  const GuestRange& range = piece.range;
  piece.difference.reset();
  piece.left.resize(kStep);
  piece.right.resize(kStep);
  for (uint64_t done = 0; done < range.length && !piece.difference; done += kStep) {
    IMG_RETURN_IF_ERROR(CheckStop());
    const uint64_t offset = range.offset.value + done,
                   length = std::min(kStep, range.length - done);
    MutableBytes a = MutableBytes(piece.left).first(length);
    MutableBytes b = MutableBytes(piece.right).first(length);
    IMG_RETURN_IF_ERROR(ReaderOver(left)(offset, a));
    IMG_RETURN_IF_ERROR(ReaderOver(right)(offset, b));
    if (std::memcmp(a.data(), b.data(), length) == 0) continue;
    auto at = std::ranges::mismatch(a, b);
    piece.difference = offset + static_cast<uint64_t>(at.in1 - a.begin());
  }
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
  DataPieces pieces({&left, &right}, size, kComparePiece);
  std::optional<uint64_t> difference;
  Pipeline<ComparedPiece> pipeline;
  // The first difference ends it, as an error would.
  auto status = pipeline.Run(
      o.threads > 0 ? o.threads : UsableCores(),
      [&](ComparedPiece& piece) -> Result<bool> {
        IMG_ASSIGN_OR_RETURN(auto range, pieces.Next());
        if (range) piece.range = *range;
        return range.has_value();
      },
      [&](ComparedPiece& piece) { return ComparePiece(left, right, piece); },
      [&](const ComparedPiece& piece) -> Status {
        progress.Update("compared", piece.range.offset.value, size);
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
