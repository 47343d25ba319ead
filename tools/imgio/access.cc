// SPDX-License-Identifier: Apache-2.0
// imgio read, write, zero, discard, resize: guest I/O on one image.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/checked.h"
#include "base/interrupt.h"
#include "base/text.h"
#include "tools/imgio/commands.h"

namespace imgfsck {
namespace {

constexpr uint64_t kAccessChunk = 4 * kMiB;  // bytes in memory at a time

// A file descriptor that is closed unless it is a standard one.
class Descriptor {
 public:
  static Result<Descriptor> Open(const std::string& path, int flags, int standard) {
    if (path.empty() || path == "-") return Descriptor(standard, false);
    int fd = open(path.c_str(), flags | O_CLOEXEC, 0600);
    if (fd < 0) return ErrorFromErrno(errno, Printable(path));
    return Descriptor(fd, true);
  }
  Descriptor(Descriptor&& other) noexcept : fd_(other.fd_), ours_(other.ours_) {
    other.ours_ = false;
  }
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor() {
    if (ours_) close(fd_);
  }

  Status Put(Bytes bytes) const {
    while (!bytes.empty()) {
      ssize_t n = write(fd_, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return ErrorFromErrno(errno, "write");
      bytes = bytes.subspan(static_cast<size_t>(n));
    }
    return Ok();
  }
  // As much as there is; fewer bytes only at the end.
  Result<size_t> Get(MutableBytes buffer) const {
    size_t got = 0;
    while (got < buffer.size()) {
      ssize_t n = read(fd_, buffer.data() + got, buffer.size() - got);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return ErrorFromErrno(errno, "read");
      if (n == 0) break;
      got += static_cast<size_t>(n);
    }
    return got;
  }

 private:
  Descriptor(int fd, bool ours) : fd_(fd), ours_(ours) {}
  int fd_;
  bool ours_;
};

// A file that is to be written or read beside the image must be none of the image's own.
Status CheckOther(const Chain& chain, const std::string& path) {
  if (path.empty() || path == "-" || !chain.UsesFile(path)) return Ok();
  return Error{ErrorCode::kConflict, fmt::format("{} is the image itself", Printable(path)), {}};
}

Status CheckRange(Driver& driver, uint64_t offset, uint64_t length) {
  if (RangeFits(offset, length, driver.VirtualSize())) return Ok();
  return Error{ErrorCode::kInvalid,
               fmt::format("{} bytes at {} reach past the end of the disk, which has {}", length,
                           offset, driver.VirtualSize()),
               {}};
}

Status Put(Driver& driver, bool compressed, uint64_t offset, Bytes bytes) {
  return compressed ? driver.WriteCompressed(offset, bytes) : driver.Write(offset, bytes);
}

Result<uint64_t> WriteFrom(Driver& driver, const ImgioOptions& o) {
  IMG_ASSIGN_OR_RETURN(Descriptor in, Descriptor::Open(o.from, O_RDONLY, STDIN_FILENO));
  uint64_t at = o.sizes[0], left = o.length.value_or(UINT64_MAX);
  ByteVector buffer(AlignUp(kAccessChunk, driver.ClusterSize()));
  while (left > 0) {
    IMG_RETURN_IF_ERROR(CheckStop());
    IMG_ASSIGN_OR_RETURN(
        size_t got, in.Get(MutableBytes(buffer).first(std::min<uint64_t>(buffer.size(), left))));
    if (got == 0) break;
    IMG_RETURN_IF_ERROR(CheckRange(driver, at, got));
    IMG_RETURN_IF_ERROR(Put(driver, o.compressed, at, Bytes(buffer).first(got)));
    at += got;
    left -= got;
  }
  if (o.length && left > 0) {
    return Error{ErrorCode::kInvalid, fmt::format("{} ends too early", Printable(o.from)), {}};
  }
  return at - o.sizes[0];
}

Result<uint64_t> WritePattern(Driver& driver, const ImgioOptions& o) {
  IMG_RETURN_IF_ERROR(CheckRange(driver, o.sizes[0], *o.length));
  const ByteVector buffer(std::min(AlignUp(kAccessChunk, driver.ClusterSize()), *o.length),
                          *o.pattern);
  for (uint64_t done = 0; done < *o.length;) {
    IMG_RETURN_IF_ERROR(CheckStop());
    uint64_t step = std::min<uint64_t>(buffer.size(), *o.length - done);
    IMG_RETURN_IF_ERROR(Put(driver, o.compressed, o.sizes[0] + done, Bytes(buffer).first(step)));
    done += step;
  }
  return *o.length;
}

// Runs one operation on the image opened for writing, and ends the session cleanly also when it
// failed: what was written before is kept.
template <class Operation>
Result<int> OnWritable(const ImgioOptions& options, const Operation& operation) {
  IMG_ASSIGN_OR_RETURN(auto chain, OpenChain(options, options.words[0], {.writable = true}));
  IMG_RETURN_IF_ERROR(CheckOther(*chain, options.from));
  Status done = operation(chain->driver());
  Status closed = chain->driver().Close();
  IMG_RETURN_IF_ERROR(done);
  IMG_RETURN_IF_ERROR(closed);
  return 0;
}

}  // namespace

Result<int> ReadCommand(const ImgioOptions& o) {
  IMG_ASSIGN_OR_RETURN(auto chain, OpenChain(o, o.words[0], {}));
  Driver& driver = chain->driver();
  IMG_RETURN_IF_ERROR(CheckRange(driver, o.sizes[0], o.sizes[1]));
  IMG_RETURN_IF_ERROR(CheckOther(*chain, o.to));
  IMG_ASSIGN_OR_RETURN(Descriptor out,
                       Descriptor::Open(o.to, O_WRONLY | O_CREAT | O_TRUNC, STDOUT_FILENO));
  ByteVector buffer(std::min(kAccessChunk, o.sizes[1]));
  for (uint64_t done = 0; done < o.sizes[1];) {
    IMG_RETURN_IF_ERROR(CheckStop());
    MutableBytes part =
        MutableBytes(buffer).first(std::min<uint64_t>(kAccessChunk, o.sizes[1] - done));
    IMG_RETURN_IF_ERROR(driver.Read(o.sizes[0] + done, part));
    IMG_RETURN_IF_ERROR(out.Put(part));
    done += part.size();
  }
  return 0;
}

Result<int> WriteCommand(const ImgioOptions& o) {
  return OnWritable(o, [&](Driver& driver) -> Status {
    IMG_ASSIGN_OR_RETURN(uint64_t written,
                         o.from.empty() ? WritePattern(driver, o) : WriteFrom(driver, o));
    if (!o.quiet) fmt::print("{} bytes written at {}\n", written, o.sizes[0]);
    return Ok();
  });
}

Result<int> ZeroCommand(const ImgioOptions& o) {
  return OnWritable(o, [&](Driver& driver) -> Status {
    IMG_RETURN_IF_ERROR(CheckRange(driver, o.sizes[0], o.sizes[1]));
    if (driver.capabilities().zero) return driver.Zero(o.sizes[0], o.sizes[1]);
    ImgioOptions zeros = o;
    zeros.pattern = uint8_t{0};
    zeros.length = o.sizes[1];
    auto written = WritePattern(driver, zeros);
    return written ? Ok() : Status(std::move(written).error());
  });
}

Result<int> DiscardCommand(const ImgioOptions& o) {
  return OnWritable(o, [&](Driver& driver) -> Status {
    IMG_RETURN_IF_ERROR(CheckRange(driver, o.sizes[0], o.sizes[1]));
    return driver.Discard(o.sizes[0], o.sizes[1]);
  });
}

Result<int> ResizeCommand(const ImgioOptions& o) {
  return OnWritable(o, [&](Driver& driver) -> Status {
    const uint64_t old = driver.VirtualSize();
    std::optional<uint64_t> size = o.sizes[0];
    if (o.sign == '+') size = CheckedAdd(old, o.sizes[0]);
    if (o.sign == '-') size = old >= o.sizes[0] ? std::optional(old - o.sizes[0]) : std::nullopt;
    if (!size) return Error{ErrorCode::kInvalid, "that would be no size for a disk", {}};
    *size = AlignUp(*size, kSector);
    if (*size < old && !o.shrink) {
      return Error{
          ErrorCode::kInvalid, "the disk would lose its end; --shrink says that this is meant", {}};
    }
    IMG_RETURN_IF_ERROR(driver.Resize(*size));
    if (!o.quiet) fmt::print("{}: {} bytes\n", Printable(o.words[0]), *size);
    return Ok();
  });
}

}  // namespace imgfsck
