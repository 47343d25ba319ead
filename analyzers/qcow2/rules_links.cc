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

void JudgeLinks(const Image& image, const CheckOptions& options, Findings* out) {
  if (options.path.empty()) return;
  struct stat status = {};
  if (image.backing_name && IsPlainPath(*image.backing_name) && !options.chain) {
    std::string path = Resolve(*image.backing_name, options.path);
    if (stat(path.c_str(), &status) != 0) {
      out->Add(HeaderFinding(Problem::kQcow2BackingMissing, "backing_file_offset",
                             Printable(*image.backing_name)));
    }
  }
  // QEMU takes relative data file names from its working directory; beside the image is where
  // people keep them.
  if (image.has_data_file() && image.data_file_name && IsPlainPath(*image.data_file_name)) {
    std::string path = Resolve(*image.data_file_name, options.path);
    bool found = stat(path.c_str(), &status) == 0 ||
                 stat(image.data_file_name->c_str(), &status) == 0;
    if (found && S_ISREG(status.st_mode) && image.header.Autoclear(kAutoclearRawData) &&
        static_cast<uint64_t>(status.st_size) < image.header.size) {
      Finding f = HeaderFinding(Problem::kQcow2DatafileShort, "");
      f.detail = fmt::format("{} bytes, disk has {}", status.st_size, image.header.size);
      out->Add(std::move(f));
    }
  }
}

}  // namespace imgfsck::qcow2
