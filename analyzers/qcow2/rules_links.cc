// SPDX-License-Identifier: Apache-2.0
// The files that an image names. Names are untrusted: at most one stat() of a plain local path;
// nothing is opened, and protocol or json: names are not followed at all.
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>

#include "analyzers/qcow2/rules.h"
#include "base/text.h"

namespace imgfsck::qcow2 {
namespace {

// A plain path, as opposed to "nbd://…", "json:{…}" and the like.
bool IsPlainPath(const std::string& name) {
  if (name.empty() || name.find('\0') != std::string::npos) return false;
  size_t colon = name.find(':'), slash = name.find('/');
  return colon == std::string::npos || (slash != std::string::npos && slash < colon);
}

std::string Resolve(const std::string& name, const std::string& image_path) {
  size_t slash = image_path.rfind('/');
  if (name.starts_with('/') || slash == std::string::npos) return name;
  return image_path.substr(0, slash + 1) + name;
}

}  // namespace

void JudgeBacking(const Image& image, const CheckOptions& options, Findings* out) {
  if (options.path.empty() || options.chain || !image.backing_name ||
      !IsPlainPath(*image.backing_name)) {
    return;
  }
  struct stat status = {};
  if (stat(Resolve(*image.backing_name, options.path).c_str(), &status) != 0) {
    out->Add(HeaderFinding(Problem::kQcow2BackingMissing, "backing_file_offset",
                           Printable(*image.backing_name)));
  }
}

// QEMU takes relative data file names from its working directory; beside the image is where people
// keep them.
void JudgeDataFile(const Image& image, const CheckOptions& options, uint64_t mapped_end,
                   Findings* out) {
  if (options.path.empty() || !image.has_data_file() || !image.data_file_name ||
      !IsPlainPath(*image.data_file_name)) {
    return;
  }
  struct stat status = {};
  if (stat(Resolve(*image.data_file_name, options.path).c_str(), &status) != 0 ||
      !S_ISREG(status.st_mode)) {
    return;
  }
  uint64_t size = static_cast<uint64_t>(status.st_size);
  uint64_t needed = std::min(mapped_end, image.header.size);
  if (size >= needed) return;
  Finding f = HeaderFinding(Problem::kQcow2DatafileShort, "");
  f.detail = fmt::format("{} bytes, {} are mapped", size, needed);
  f.guest = MakeGuestRange(size, needed - size);
  f.layer = kActiveLayer;
  out->Add(std::move(f));
}

}  // namespace imgfsck::qcow2
