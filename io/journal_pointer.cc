// SPDX-License-Identifier: Apache-2.0
// IMAGE.imgfsck-journal, four lines:
//   imgfsck-journal 1
//   path LENGTH          (bytes of the next line without its line feed)
//   /absolute/path/of/the/undo/record
//   sha256 HEX           (over all bytes before this line)
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "base/text.h"
#include "io/sha256.h"
#include "io/undo_record.h"

namespace imgfsck {
namespace {

constexpr std::string_view kTag = "imgfsck-journal 1\n";
constexpr uint64_t kLargestPointer = 64 * kKiB;  // bytes

bool Exists(const std::string& path) {
  struct stat info;
  return lstat(path.c_str(), &info) == 0;
}

// Beside the file itself, so that every name of the image finds the same pointer.
std::string PointerPath(const std::string& image_path) {
  std::error_code error;
  const auto real = std::filesystem::canonical(image_path, error);
  return (error ? image_path : real.string()) + std::string(kJournalSuffix);
}

std::string Encode(const std::string& undo_path) {
  std::string text = fmt::format("{}path {}\n{}\n", kTag, undo_path.size(), undo_path);
  return text + fmt::format("sha256 {}\n", HexSha256(AsBytes(text)));
}

// The path, when `text` is exactly what Encode makes of it.
std::optional<std::string> Decode(std::string_view text) {
  const std::string_view whole = text;
  if (!text.starts_with(kTag)) return std::nullopt;
  text.remove_prefix(kTag.size());
  const size_t line_end = text.find('\n');
  if (line_end == std::string_view::npos || !text.starts_with("path ")) return std::nullopt;
  const auto length = ParseSize(text.substr(5, line_end - 5));
  text.remove_prefix(line_end + 1);
  if (!length || *length > text.size()) return std::nullopt;
  std::string path(text.substr(0, *length));
  if (!path.starts_with('/') || path.find('\0') != std::string::npos) return std::nullopt;
  if (Encode(path) != whole) return std::nullopt;
  return path;
}

// rename(2) that does not replace. Where the file system cannot promise that, look first.
Status RenameNew(const std::string& from, const std::string& to) {
  int outcome = renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE);
  if (outcome != 0 && (errno == EINVAL || errno == ENOSYS)) {
    if (Exists(to)) {
      errno = EEXIST;
    } else {
      outcome = rename(from.c_str(), to.c_str());
    }
  }
  return outcome == 0 ? Ok()
                      : Status(ErrorFromErrno(errno, fmt::format("create {}", Printable(to))));
}

}  // namespace

Status WriteJournalPointer(const std::string& image_path, const std::string& undo_path) {
  std::error_code error;
  const auto absolute = std::filesystem::absolute(undo_path, error);
  if (error) return ErrorFromErrno(error.value(), Printable(undo_path));
  const std::string pointer = PointerPath(image_path);
  const std::string unfinished = pointer + ".new";
  unlink(unfinished.c_str());  // left by a crash; nothing refers to it
  auto status = [&]() -> Status {
    IMG_ASSIGN_OR_RETURN(const auto file, FileStore::Open(unfinished, FileStore::Mode::kCreateNew));
    IMG_RETURN_IF_ERROR(file->WriteAt(0, AsBytes(Encode(absolute.string()))));
    IMG_RETURN_IF_ERROR(file->Sync());
    return RenameNew(unfinished, pointer);
  }();
  if (!status) {
    unlink(unfinished.c_str());
    return status;
  }
  status = SyncDirectoryOf(pointer);
  // A pointer that may not outlive a crash must not outlive its failure either.
  if (!status) unlink(pointer.c_str());
  return status;
}

Result<std::optional<std::string>> ReadJournalPointer(const std::string& image_path) {
  const std::string pointer = PointerPath(image_path);
  auto file = FileSource::Open(pointer);
  if (!file && file.error().code == ErrorCode::kNotFound) return std::optional<std::string>();
  if (!file) return Error(std::move(file).error());
  ByteVector content(std::min((*file)->Size(), kLargestPointer));
  IMG_RETURN_IF_ERROR(ReadExact(**file, 0, content));
  auto undo_path = Decode(AsText(content));
  if (!undo_path) {
    return Error{ErrorCode::kInvalid,
                 fmt::format("{} is not a journal pointer of imgfsck; nothing tells whether a "
                             "repair was interrupted",
                             Printable(pointer)),
                 {}};
  }
  if (!Exists(*undo_path)) {  // both may have moved, or lie under another mount point
    const std::string beside = pointer.substr(0, pointer.find_last_of('/') + 1) +
                               undo_path->substr(undo_path->find_last_of('/') + 1);
    if (Exists(beside)) undo_path = beside;
  }
  return undo_path;
}

Status RemoveJournalPointer(const std::string& image_path) {
  const std::string pointer = PointerPath(image_path);
  if (unlink(pointer.c_str()) != 0 && errno != ENOENT) {
    return ErrorFromErrno(errno, fmt::format("remove {}", Printable(pointer)));
  }
  return SyncDirectoryOf(pointer);
}

std::string FreeUndoPath(const std::string& image_path) {
  const std::string first = image_path + std::string(kUndoSuffix);
  std::string path = first;
  for (uint64_t number = 2; Exists(path) || Exists(path + "-journal"); ++number) {
    path = fmt::format("{}.{}", first, number);
  }
  return path;
}

}  // namespace imgfsck
