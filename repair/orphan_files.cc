// SPDX-License-Identifier: Apache-2.0
#include "repair/orphan_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "base/checked.h"
#include "base/interrupt.h"
#include "base/range_set.h"
#include "base/text.h"
#include "io/file.h"

namespace imgfsck {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kOrphanFilesChunk = kMiB;  // bytes copied at a time

Status MakeDirectory(const std::string& directory) {
  std::error_code error;
  if (fs::create_directory(directory, error)) return Ok();
  if (error) return ErrorFromErrno(error.value(), fmt::format("create {}", Printable(directory)));
  const bool empty = fs::is_directory(directory, error) && fs::is_empty(directory, error);
  if (empty && !error) return Ok();
  return Error{
      ErrorCode::kExists,
      fmt::format("{} is not an empty directory; nothing was written to it", Printable(directory)),
      {}};
}

// Copies a range, or finds that it is all zero and makes no file. What cannot be read is zeros.
class RangeFile {
 public:
  RangeFile(const ByteSource& image, HostRange host) : image_(image), host_(host) {}

  Result<bool> Write(const std::string& path) {
    ByteVector buffer(std::min(kOrphanFilesChunk, host_.length));
    for (uint64_t done = 0; done < host_.length;) {
      IMG_RETURN_IF_ERROR(CheckStop());
      const MutableBytes part =
          MutableBytes(buffer).first(std::min<uint64_t>(buffer.size(), host_.length - done));
      if (!ReadPadded(image_, host_.offset.value + done, part)) {
        std::fill(part.begin(), part.end(), uint8_t{0});
      }
      if (!AllZero(part)) {
        if (!file_) {
          IMG_ASSIGN_OR_RETURN(file_, FileStore::Open(path, FileStore::Mode::kCreateNew));
          IMG_RETURN_IF_ERROR(file_->SetSize(host_.length));
        }
        IMG_RETURN_IF_ERROR(file_->WriteAt(done, part));
      }
      done += part.size();
    }
    if (!file_) return false;
    IMG_RETURN_IF_ERROR(file_->Sync());
    return true;
  }

 private:
  const ByteSource& image_;
  HostRange host_;
  std::unique_ptr<FileStore> file_;
};

std::string IndexLine(const std::string& name, const OrphanPiece& piece) {
  const std::string guest = piece.guest ? fmt::format("{}", piece.guest->offset.value) : "";
  return fmt::format("{}\t{}\t{}\t{}\t{}\n", name, piece.host.offset.value, piece.host.length,
                     guest, Printable(piece.origin));
}

// Cut where the file ends; overlapping ones twice, as their owners' tables had them.
std::vector<OrphanPiece> CollectPieces(const ByteSource& image, const Plan& plan) {
  std::vector<OrphanPiece> pieces = plan.pieces;
  RangeSet covered;
  for (const OrphanPiece& piece : pieces) covered.Add(piece.host.offset.value, piece.host.length);
  for (const Finding& finding : plan.Final().findings.kept()) {
    if (finding.severity_or_default() != Severity::kLeak || !finding.host) continue;
    if (covered.Covers(finding.host->offset.value, finding.host->length)) continue;
    covered.Add(finding.host->offset.value, finding.host->length);
    pieces.push_back({*finding.host, finding.guest, std::string(finding.info().code)});
  }
  std::erase_if(pieces, [&](OrphanPiece& piece) {
    const uint64_t begin = std::min(piece.host.offset.value, image.Size());
    piece.host.length = std::min(piece.host.length, image.Size() - begin);
    return piece.host.length == 0;
  });
  return pieces;
}

bool ListedAll(const Findings& findings) {
  for (const auto& [problem, total] : findings.totals()) {
    if (total.dropped > 0 && findings.Units(problem, Severity::kLeak) > 0) return false;
  }
  return true;
}

}  // namespace

Result<OrphanFiles> WriteOrphanFiles(const ByteSource& image, const Plan& plan,
                                     const std::string& directory) {
  IMG_RETURN_IF_ERROR(MakeDirectory(directory));
  OrphanFiles result;
  result.complete = ListedAll(plan.Final().findings);
  std::string index = "file\thost_offset\tlength\tguest_offset\torigin\n";
  uint64_t number = 0;
  for (const OrphanPiece& piece : CollectPieces(image, plan)) {
    const std::string name = fmt::format("{:06}-{:x}.bin", ++number, piece.host.offset.value);
    IMG_ASSIGN_OR_RETURN(const bool written,
                         RangeFile(image, piece.host).Write(directory + "/" + name));
    if (!written) {
      ++result.empty;
      continue;
    }
    ++result.files;
    result.bytes += piece.host.length;
    index += IndexLine(name, piece);
  }
  const std::string index_path = directory + "/INDEX.tsv";
  IMG_ASSIGN_OR_RETURN(const auto file, FileStore::Open(index_path, FileStore::Mode::kCreateNew));
  IMG_RETURN_IF_ERROR(file->WriteAt(0, AsBytes(index)));
  IMG_RETURN_IF_ERROR(file->Sync());
  IMG_RETURN_IF_ERROR(SyncDirectoryOf(index_path));
  return result;
}

}  // namespace imgfsck
