// SPDX-License-Identifier: Apache-2.0
#include "tools/imgio/copy.h"

#include <algorithm>

#include "base/checked.h"
#include "base/interrupt.h"
#include "chain/composed.h"
#include "tools/imgio/extents.h"
#include "tools/imgio/pipeline.h"

namespace imgfsck {
namespace {

constexpr uint64_t kPiece = 1 * kMiB;            // bytes read at a time
constexpr uint64_t kCompressedPiece = 8 * kMiB;  // so that every core has something to compress
constexpr uint64_t kLargestGrain = 64 * kKiB;    // zeros of that many bytes are worth leaving out

enum class RunKind : uint8_t { kData, kZero, kInBase };

struct PieceRun {
  uint64_t at = 0, length = 0;  // in the piece
  RunKind kind{};
};

struct Piece {
  GuestRange range;
  ByteVector bytes, below;  // of the source, of the base
  std::vector<PieceRun> runs;
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
        piece_(AlignUp(options.compress ? kCompressedPiece : kPiece, target.ClusterSize())),
        parallel_write_(!options.compress && options.parallel_write) {
    // Zeros are looked for in units that the target can leave out.
    if (options.compress) {
      grain_ = target.ClusterSize();
    } else if (options.sparse != 0 || options.base != nullptr) {
      grain_ = std::max(options.sparse, std::min(target.ClusterSize(), kLargestGrain));
    }
  }

  Status Run() {
    std::vector<Driver*> disks;
    if (grain_ != 0) disks.push_back(&source_);  // else zeros are copied, too
    if (options_.base != nullptr) disks.push_back(options_.base);
    DataPieces pieces(disks, size_, piece_);
    Pipeline<Piece> pipeline;
    IMG_RETURN_IF_ERROR(pipeline.Run(
        options_.threads,
        [&](Piece& piece) -> Result<bool> {
          IMG_ASSIGN_OR_RETURN(auto range, pieces.Next());
          if (range) piece.range = *range;
          return range.has_value();
        },
        [this](Piece& piece) { return Read(piece); },
        [this](const Piece& piece) { return Take(piece); }));
    return WriteZerosBetween(done_, size_ - done_);
  }

 private:
  // In any thread.
  Status Read(Piece& piece) {
    IMG_RETURN_IF_ERROR(CheckStop());
    const uint64_t offset = piece.range.offset.value;
    piece.lost.clear();
    piece.bytes.resize(piece.range.length);
    auto status = source_.Read(offset, piece.bytes);
    if (!status && options_.salvage && MayGoOn(status.error())) {
      status = ReadPastDamage(source_, offset, piece.bytes, &piece.lost);
    }
    IMG_RETURN_IF_ERROR(status);
    if (options_.base != nullptr) IMG_RETURN_IF_ERROR(ReadBelow(piece));
    FindRuns(piece);
    return parallel_write_ ? WriteRuns(offset, piece, RunKind::kData) : Ok();
  }

  // A piece of the base that cannot be read is none that anything could be left to.
  Status ReadBelow(Piece& piece) const {
    piece.below.resize(piece.range.length);
    auto status = ReaderOver(*options_.base)(piece.range.offset.value, piece.below);
    if (status || !options_.salvage || !MayGoOn(status.error())) return status;
    piece.below.clear();
    return Ok();
  }

  // In order.
  Status Take(const Piece& piece) {
    const uint64_t offset = piece.range.offset.value;
    for (const GuestRange& lost : piece.lost) AddLost(lost.offset.value, lost.length, &lost_);
    if (options_.progress) options_.progress->Update("copied", offset, size_);
    IMG_RETURN_IF_ERROR(WriteZerosBetween(done_, offset - done_));
    done_ = piece.range.end();
    IMG_RETURN_IF_ERROR(WriteRuns(offset, piece, RunKind::kZero));
    return parallel_write_ ? Ok() : WriteRuns(offset, piece, RunKind::kData);
  }

  RunKind KindOf(const Piece& piece, uint64_t at, uint64_t length) const {
    const Bytes bytes = Bytes(piece.bytes).subspan(at, length);
    if (options_.base != nullptr && !piece.below.empty() &&
        std::ranges::equal(bytes, Bytes(piece.below).subspan(at, length))) {
      return RunKind::kInBase;
    }
    return grain_ != 0 && AllZero(bytes) ? RunKind::kZero : RunKind::kData;
  }

  void FindRuns(Piece& piece) const {
    const uint64_t size = piece.bytes.size(), grain = grain_ == 0 ? size : grain_;
    piece.runs.clear();
    for (uint64_t at = 0; at < size; at += grain) {
      const uint64_t length = std::min<uint64_t>(grain, size - at);
      const RunKind kind = KindOf(piece, at, length);
      if (!piece.runs.empty() && piece.runs.back().kind == kind) {
        piece.runs.back().length += length;
      } else {
        piece.runs.push_back({at, length, kind});
      }
    }
  }

  Status WriteRuns(uint64_t offset, const Piece& piece, RunKind kind) {
    for (const PieceRun& run : piece.runs) {
      if (run.kind != kind) continue;
      IMG_RETURN_IF_ERROR(
          kind == RunKind::kZero
              ? WriteZeros(offset + run.at, run.length)
              : WriteData(offset + run.at, Bytes(piece.bytes).subspan(run.at, run.length)));
    }
    return Ok();
  }

  Status WriteData(uint64_t offset, Bytes bytes) {
    return options_.compress ? target_.WriteCompressed(offset, bytes)
                             : target_.Write(offset, bytes);
  }

  // Between the pieces neither the source nor the base has anything.
  Status WriteZerosBetween(uint64_t offset, uint64_t length) {
    return options_.zeros_needed ? WriteZeros(offset, length) : Ok();
  }

  Status WriteZeros(uint64_t offset, uint64_t length) {
    if ((!options_.zeros_needed && options_.base == nullptr) || length == 0) return Ok();
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
  const bool parallel_write_;
  uint64_t grain_ = 0;  // bytes; 0: zeros are written like anything else
  uint64_t done_ = 0;   // up to there the target is as it will be
};

}  // namespace

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
