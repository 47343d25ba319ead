// SPDX-License-Identifier: Apache-2.0
#include "tools/imgio/copy.h"

#include <algorithm>

#include "base/checked.h"
#include "base/interrupt.h"
#include "tools/imgio/pipeline.h"

namespace imgfsck {
namespace {

constexpr uint64_t kPiece = 2 * kMiB;            // bytes read at a time
constexpr uint64_t kCompressedPiece = 8 * kMiB;  // so that every core has something to compress

struct Piece {
  ByteVector bytes;
  bool zero = false;  // nothing to read
  std::vector<GuestRange> lost;
};

void AddLost(uint64_t offset, uint64_t length, std::vector<GuestRange>* lost) {
  if (!lost->empty() && lost->back().end() == offset) {
    lost->back().length += length;
  } else {
    lost->push_back(MakeGuestRange(offset, length));
  }
}

bool MayGoOn(const Error& error) {
  return error.code == ErrorCode::kIo || error.code == ErrorCode::kInvalid;
}

class Copier {
 public:
  Copier(Driver& source, Driver& target, const CopyOptions& options, std::vector<GuestRange>* lost)
      : source_(source),
        target_(target),
        options_(options),
        lost_(*lost),
        size_(source.VirtualSize()),
        piece_(AlignUp(options.compress ? kCompressedPiece : kPiece, target.ClusterSize())) {
    // Zeros are looked for in units that the target can leave out.
    grain_ = options.sparse;
    if (options.compress) grain_ = target.ClusterSize();
  }

  Status Run() {
    Pipeline<Piece> pipeline;
    return pipeline.Run(
        DivRoundUp(size_, piece_), options_.threads,
        [this](uint64_t item, Piece& piece) { return Read(item, piece); },
        [this](uint64_t item, Piece& piece) { return Write(item * piece_, piece); });
  }

 private:
  Status Read(uint64_t item, Piece& piece) {
    IMG_RETURN_IF_ERROR(CheckStop());
    uint64_t offset = item * piece_, length = std::min(piece_, size_ - offset);
    piece.lost.clear();
    piece.zero = grain_ != 0 && KnownZero(source_, offset, length);
    if (piece.zero) {
      piece.bytes.clear();
      return Ok();
    }
    piece.bytes.resize(length);
    auto status = source_.Read(offset, piece.bytes);
    if (status || !options_.salvage || !MayGoOn(status.error())) return status;
    return ReadPastDamage(source_, offset, piece.bytes, &piece.lost);
  }

  // Runs of grains, zero or not.
  Status Write(uint64_t offset, const Piece& piece) {
    for (const GuestRange& range : piece.lost) AddLost(range.offset.value, range.length, &lost_);
    if (options_.progress) options_.progress->Update("copied", offset, size_);
    uint64_t length = std::min(piece_, size_ - offset);
    if (piece.zero) return WriteZeros(offset, length);
    if (grain_ == 0) return WriteData(offset, piece.bytes);
    uint64_t at = 0;
    while (at < length) {
      bool zero = IsZero(piece, at);
      uint64_t end = at;
      while (end < length && IsZero(piece, end) == zero) end = std::min(end + grain_, length);
      IMG_RETURN_IF_ERROR(zero ? WriteZeros(offset + at, end - at)
                               : WriteData(offset + at, Bytes(piece.bytes).subspan(at, end - at)));
      at = end;
    }
    return Ok();
  }

  bool IsZero(const Piece& piece, uint64_t at) const {
    return AllZero(Bytes(piece.bytes).subspan(at, std::min(grain_, piece.bytes.size() - at)));
  }

  Status WriteData(uint64_t offset, Bytes bytes) {
    return options_.compress ? target_.WriteCompressed(offset, bytes)
                             : target_.Write(offset, bytes);
  }

  Status WriteZeros(uint64_t offset, uint64_t length) {
    if (!options_.zeros_needed) return Ok();
    if (target_.capabilities().zero) return target_.Zero(offset, length);
    const ByteVector zeros(std::min(length, kPiece));
    for (uint64_t done = 0; done < length; done += zeros.size()) {
      uint64_t step = std::min<uint64_t>(zeros.size(), length - done);
      IMG_RETURN_IF_ERROR(target_.Write(offset + done, Bytes(zeros).first(step)));
    }
    return Ok();
  }

  Driver& source_;
  Driver& target_;
  const CopyOptions& options_;
  std::vector<GuestRange>& lost_;
  const uint64_t size_, piece_;
  uint64_t grain_ = 0;
};

}  // namespace

bool KnownZero(Driver& driver, uint64_t offset, uint64_t length) {
  while (length > 0) {
    auto status = driver.StatusAt(offset, length);
    if (!status ||
        (status->state != MappingState::kZero && status->state != MappingState::kUnallocated)) {
      return false;  // reading it tells what is wrong
    }
    uint64_t step = std::min(status->length, length);
    offset += step;
    length -= step;
  }
  return true;
}

Status ReadPastDamage(Driver& source, uint64_t offset, MutableBytes buffer,
                      std::vector<GuestRange>* lost) {
  // Halves, quarters …: damage concerns clusters, what a medium refuses concerns sectors.
  const uint64_t cluster = source.ClusterSize();
  std::vector<GuestRange> todo{MakeGuestRange(offset, buffer.size())};
  while (!todo.empty()) {
    IMG_RETURN_IF_ERROR(CheckStop());
    GuestRange range = todo.back();
    todo.pop_back();
    MutableBytes part = buffer.subspan(range.offset.value - offset, range.length);
    auto status = source.Read(range.offset.value, part);
    if (status) continue;
    if (!MayGoOn(status.error())) return status;
    uint64_t smallest =
        status.error().code == ErrorCode::kIo ? kSector : std::min(cluster, 4 * kKiB);
    if (range.length <= smallest) {
      std::ranges::fill(part, uint8_t{0});
      AddLost(range.offset.value, range.length, lost);
      continue;
    }
    uint64_t middle = AlignUp(range.offset.value + range.length / 2, smallest);
    if (middle >= range.end()) middle = AlignDown(range.end() - 1, smallest);
    if (middle <= range.offset.value) middle = range.offset.value + range.length / 2;
    todo.push_back(MakeGuestRange(middle, range.end() - middle));
    todo.push_back(MakeGuestRange(range.offset.value, middle - range.offset.value));
  }
  return Ok();
}

Status CopyDisk(Driver& source, Driver& target, const CopyOptions& options,
                std::vector<GuestRange>* lost) {
  return Copier(source, target, options, lost).Run();
}

}  // namespace imgfsck
