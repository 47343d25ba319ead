// SPDX-License-Identifier: Apache-2.0
// imgio commit and rebase: moving data between an image and its backing file.
#include <fmt/format.h>

#include <algorithm>

#include "base/interrupt.h"
#include "base/text.h"
#include "tools/common/terminal.h"
#include "tools/imgio/commands.h"

namespace imgfsck {
namespace {

constexpr uint64_t kChunk = 2 * kMiB;

Status CommitRange(Driver& top, Driver& base, uint64_t offset, const BlockStatus& status) {
  if (status.state == MappingState::kZero && base.capabilities().zero) {
    return base.Zero(offset, status.length);
  }
  for (uint64_t done = 0; done < status.length;) {
    ByteVector bytes(std::min(kChunk, status.length - done));
    IMG_RETURN_IF_ERROR(top.Read(offset + done, bytes));
    IMG_RETURN_IF_ERROR(base.Write(offset + done, bytes));
    done += bytes.size();
  }
  return Ok();
}

// What `top` itself has goes into `base`; ranges of whole clusters, so nothing else is read.
Status CommitInto(Driver& top, Driver& base, Progress& progress) {
  const uint64_t size = top.VirtualSize();
  if (base.VirtualSize() < size) IMG_RETURN_IF_ERROR(base.Resize(size));
  for (uint64_t at = 0; at < size;) {
    IMG_RETURN_IF_ERROR(CheckStop());
    IMG_ASSIGN_OR_RETURN(BlockStatus status, top.StatusAt(at, size - at));
    if (status.state != MappingState::kUnallocated) {
      IMG_RETURN_IF_ERROR(CommitRange(top, base, at, status));
    }
    at += status.length;
    progress.Update("committed", at, size);
  }
  return base.Close();
}

// COW images record when their base was written; User-Mode Linux refuses another time.
Status Restamp(Chain& chain) {
  Driver& top = *chain.layers()[0]->driver;
  if (top.format() != "cow" || chain.layers().size() < 2) return Ok();
  std::optional<BackingReference> reference = top.Backing();
  IMG_RETURN_IF_ERROR(NoteStamp(*chain.layers()[1], &*reference));
  reference->file_size.reset();  // a base of another length was another one before
  return top.SetBacking(reference);
}

// Where the old and the new backing file differ and the image has nothing of its own, it gets what
// it read before.
class Rebaser {
 public:
  Rebaser(Driver& image, Driver* before, Driver* after)
      : image_(image), before_(before), after_(after) {}

  Status Run(Progress& progress) {
    const uint64_t size = image_.VirtualSize();
    for (uint64_t at = 0; at < size;) {
      IMG_RETURN_IF_ERROR(CheckStop());
      IMG_ASSIGN_OR_RETURN(BlockStatus status, image_.StatusAt(at, std::min(kChunk, size - at)));
      if (status.state == MappingState::kUnallocated) {
        IMG_RETURN_IF_ERROR(Settle(at, status.length));
      }
      at += status.length;
      progress.Update("rebased", at, size);
    }
    return Ok();
  }

 private:
  static Status ReadFrom(Driver* base, uint64_t offset, MutableBytes buffer) {
    std::ranges::fill(buffer, uint8_t{0});
    if (base == nullptr || offset >= base->VirtualSize()) return Ok();
    return base->Read(
        offset, buffer.first(std::min<uint64_t>(buffer.size(), base->VirtualSize() - offset)));
  }
  Status Settle(uint64_t offset, uint64_t length) {
    ByteVector before(length), after(length);
    IMG_RETURN_IF_ERROR(ReadFrom(before_, offset, before));
    IMG_RETURN_IF_ERROR(ReadFrom(after_, offset, after));
    const uint64_t cluster = image_.ClusterSize();
    for (uint64_t at = 0; at < length;) {
      uint64_t step = std::min(length - at, cluster - (offset + at) % cluster);
      Bytes old = Bytes(before).subspan(at, step);
      if (!std::ranges::equal(old, Bytes(after).subspan(at, step))) {
        IMG_RETURN_IF_ERROR(AllZero(old) ? image_.Zero(offset + at, step)
                                         : image_.Write(offset + at, old));
      }
      at += step;
    }
    return Ok();
  }
  Driver& image_;
  Driver *before_, *after_;
};

// Fills in the format of the new backing file when nobody said it.
Status RebaseContents(const ImgioOptions& o, Chain& chain,
                      std::optional<BackingReference>& reference) {
  std::unique_ptr<Chain> fresh;
  if (reference) {
    reference->else_raw = !HasCreateOption(*chain.layers()[0]->format, "backing_fmt");
    ChainOptions options;
    IMG_ASSIGN_OR_RETURN(options.passphrase, Passphrase(o));
    IMG_ASSIGN_OR_RETURN(fresh, Chain::OpenBacking(o.words[0], *reference, options));
    if (fresh->UsesFile(o.words[0])) {
      return Error{ErrorCode::kConflict, "the new backing file is based on the image itself", {}};
    }
    if (reference->format.empty()) {
      reference->format = std::string(fresh->layers().front()->format->name);
    }
    IMG_RETURN_IF_ERROR(NoteStamp(*fresh->layers().front(), &*reference));
  }
  Progress progress("imgio", o.progress);
  progress.Start(o.words[0]);
  Driver* before = chain.layers().size() > 1 ? chain.layers()[1]->driver.get() : nullptr;
  Rebaser rebaser(*chain.layers()[0]->driver, before, fresh ? &fresh->driver() : nullptr);
  return rebaser.Run(progress);
}

}  // namespace

Result<int> CommitCommand(const ImgioOptions& o) {
  {
    IMG_ASSIGN_OR_RETURN(auto chain, OpenChain(o, o.words[0], {}));
    if (chain->layers().size() < 2) {
      return Error{ErrorCode::kInvalid, "the image has no backing file", {}};
    }
    const ChainLayer& below = *chain->layers()[1];
    ImgioOptions base_options = o;
    base_options.snapshot.clear();
    IMG_ASSIGN_OR_RETURN(auto base, OpenChain(base_options, below.path, {.writable = true},
                                              std::string(below.format->name)));
    Progress progress("imgio", o.progress);
    progress.Start(o.words[0]);
    IMG_RETURN_IF_ERROR(CommitInto(*chain->layers()[0]->driver, base->driver(), progress));
  }
  if (!o.keep) {
    IMG_ASSIGN_OR_RETURN(auto chain, OpenChain(o, o.words[0], {.writable = true}));
    IMG_RETURN_IF_ERROR(chain->driver().Empty());
    IMG_RETURN_IF_ERROR(Restamp(*chain));
    IMG_RETURN_IF_ERROR(chain->driver().Close());
  }
  if (!o.quiet) fmt::print("{}: committed\n", Printable(o.words[0]));
  return 0;
}

Result<int> RebaseCommand(const ImgioOptions& o) {
  IMG_ASSIGN_OR_RETURN(auto chain,
                       OpenChain(o, o.words[0], {.writable = true, .ignore_backing = o.unsafe}));
  std::optional<BackingReference> reference;
  if (!o.backing.empty()) reference = BackingReference{o.backing, o.backing_format};
  if (!o.unsafe) IMG_RETURN_IF_ERROR(RebaseContents(o, *chain, reference));
  IMG_RETURN_IF_ERROR(chain->driver().SetBacking(reference));
  IMG_RETURN_IF_ERROR(chain->driver().Close());
  if (!o.quiet) fmt::print("{}: rebased\n", Printable(o.words[0]));
  return 0;
}

}  // namespace imgfsck
