// SPDX-License-Identifier: Apache-2.0
#include "repair/output.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>

#include "base/checked.h"
#include "base/interrupt.h"
#include "base/text.h"
#include "io/file.h"
#include "repair/space.h"

namespace imgfsck {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kOutputChunk = kMiB;  // bytes copied at a time
constexpr uint64_t kBlock = 4 * kKiB;    // the smallest hole made

// Removes the unfinished file unless it got its name.
class PartFile {
 public:
  explicit PartFile(std::string path) : path_(std::move(path)) {}
  ~PartFile() {
    if (!named_) unlink(path_.c_str());
  }
  PartFile(const PartFile&) = delete;
  PartFile& operator=(const PartFile&) = delete;

  Status Name(const std::string& name) {
    int outcome = renameat2(AT_FDCWD, path_.c_str(), AT_FDCWD, name.c_str(), RENAME_NOREPLACE);
    if (outcome != 0 && (errno == EINVAL || errno == ENOSYS)) {
      // link(2) refuses an existing name as well.
      outcome = link(path_.c_str(), name.c_str());
      if (outcome == 0) unlink(path_.c_str());
    }
    if (outcome != 0) return ErrorFromErrno(errno, fmt::format("create {}", Printable(name)));
    named_ = true;
    return SyncDirectoryOf(name);
  }

 private:
  std::string path_;
  bool named_ = false;
};

class Copier {
 public:
  Copier(const ByteSource& from, FileStore& to, const ProgressFn& progress)
      : from_(from), to_(to), progress_(progress), buffer_(kOutputChunk) {}

  Result<uint64_t> Run() {
    IMG_RETURN_IF_ERROR(to_.SetSize(from_.Size()));
    for (uint64_t at = 0; at < from_.Size();) {
      IMG_RETURN_IF_ERROR(CheckStop());
      IMG_ASSIGN_OR_RETURN(const HostExtent extent, from_.ExtentAt(at));
      const uint64_t end = std::min(SaturatingAdd(extent.offset, extent.length), from_.Size());
      if (end <= at) break;
      if (!extent.hole) {
        const uint64_t length = std::min(end - at, kOutputChunk - at % kOutputChunk);
        IMG_RETURN_IF_ERROR(CopyPiece(at, length));
        at += length;
      } else {
        at = end;
      }
      if (progress_) progress_("writing", at, from_.Size());
    }
    IMG_RETURN_IF_ERROR(to_.Sync());
    return unreadable_;
  }

 private:
  Status CopyPiece(uint64_t offset, uint64_t length) {
    const MutableBytes buffer = MutableBytes(buffer_).first(length);
    if (ReadExact(from_, offset, buffer)) return WriteBlocks(offset, buffer);
    for (uint64_t done = 0; done < length; done += kSector) {
      const uint64_t part = std::min(kSector, length - done);
      const MutableBytes sector = buffer.subspan(done, part);
      if (ReadExact(from_, offset + done, sector)) continue;
      std::fill(sector.begin(), sector.end(), uint8_t{0});
      unreadable_ += part;
    }
    return WriteBlocks(offset, buffer);
  }
  // Leaves out blocks of zeros; the others that follow each other go out in one write.
  Status WriteBlocks(uint64_t offset, Bytes bytes) {
    size_t start = 0;
    for (size_t at = 0; at < bytes.size();) {
      const size_t length = std::min<uint64_t>(bytes.size() - at, kBlock - (offset + at) % kBlock);
      const bool zero = AllZero(bytes.subspan(at, length));
      if (zero && at > start) {
        IMG_RETURN_IF_ERROR(to_.WriteAt(offset + start, bytes.subspan(start, at - start)));
      }
      at += length;
      if (zero) start = at;
    }
    if (start == bytes.size()) return Ok();
    return to_.WriteAt(offset + start, bytes.subspan(start));
  }

  const ByteSource& from_;
  FileStore& to_;
  const ProgressFn& progress_;
  ByteVector buffer_;
  uint64_t unreadable_ = 0;
};

fs::path FolderOf(const std::string& path) {
  std::error_code error;
  const fs::path real = fs::weakly_canonical(fs::path(path), error);
  return (error ? fs::absolute(path, error) : real).parent_path();
}

// A plain relative file name: no protocol, no json:, not absolute.
bool IsRelativeName(const std::string& name) {
  if (name.empty() || name[0] == '/') return false;
  const size_t colon = name.find(':');
  return colon == std::string::npos || name.find('/') < colon;
}

}  // namespace

Result<OutputResult> WriteOutput(const ByteSource& image, const std::string& path,
                                 const ProgressFn& progress) {
  struct stat info;
  if (lstat(path.c_str(), &info) == 0) {
    return Error{ErrorCode::kExists,
                 fmt::format("{} exists already; nothing was written", Printable(path)),
                 {}};
  }
  IMG_RETURN_IF_ERROR(CheckSpaceForCopy(path, image));
  const std::string part_path = fmt::format("{}.imgfsck-part.{}", path, getpid());
  IMG_ASSIGN_OR_RETURN(const auto store, FileStore::Open(part_path, FileStore::Mode::kCreateNew));
  PartFile part(part_path);
  OutputResult result;
  IMG_ASSIGN_OR_RETURN(result.unreadable, Copier(image, *store, progress).Run());
  IMG_RETURN_IF_ERROR(part.Name(path));
  if (result.unreadable > 0) {
    result.notes.push_back(fmt::format("{} that the medium could not read are zeros in {}",
                                       HumanSize(result.unreadable), Printable(path)));
  }
  return result;
}

std::vector<LinkRow> NamesThatChangeMeaning(const ImageRows& rows, const std::string& image_path,
                                            const std::string& output_path) {
  std::vector<LinkRow> names;
  if (FolderOf(image_path) == FolderOf(output_path)) return names;
  for (LinkRow& link : rows.Links()) {
    // A data file's relative name is looked up where QEMU runs, whatever the image's folder is.
    if (link.kind != "data-file" && IsRelativeName(link.name)) names.push_back(std::move(link));
  }
  return names;
}

Status RebaseNames(Overlay& image, const Format& format, const CheckOptions& check,
                   const std::string& image_path, const std::string& output_path) {
  if (format.open == nullptr) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("names inside {} images cannot be rewritten", format.name),
                 {}};
  }
  OpenOptions options;
  options.writable = true;
  options.passphrase = check.passphrase;
  options.size_policy = check.size_policy;
  options.path = image_path;
  IMG_ASSIGN_OR_RETURN(const auto driver, format.open(image, &image, options));
  std::optional<BackingReference> backing = driver->Backing();
  if (!backing || !IsRelativeName(backing->name)) return Ok();
  const fs::path name = FolderOf(image_path) / backing->name;
  std::error_code error;  // symbolic links on the way would give ".." another meaning
  const fs::path folder = fs::weakly_canonical(name.parent_path(), error);
  if (error) return ErrorFromErrno(error.value(), Printable(name.parent_path().string()));
  const fs::path target = folder / name.filename();
  const std::string seen = target.lexically_relative(FolderOf(output_path)).string();
  backing->name = seen.empty() ? target.string() : IsRelativeName(seen) ? seen : "./" + seen;
  IMG_RETURN_IF_ERROR(driver->SetBacking(backing));
  return driver->Close();
}

}  // namespace imgfsck
