// SPDX-License-Identifier: Apache-2.0
// Finds the file that a differencing VHD was made from: the candidates that its locators and its
// name give (sheet §7), opened read-only, plain local files only, until one has the right id.
#pragma once

#include <memory>
#include <string>

#include "formats/vhd/links.h"
#include "io/file.h"

namespace imgfsck::vhd {

struct Parent {
  std::string path;
  std::unique_ptr<FileSource> file;
  FileIdentity identity;
  ParentFit fit = ParentFit::kOtherId;
  std::unique_ptr<Image> image;  // null for a raw parent
};

// `override_path`, when not empty, is the only candidate. kNotFound when no candidate can be
// opened; when some can but none fits, the first of them, with a fit that says so.
Result<Parent> ResolveParent(const Image& child, const std::string& child_path,
                             const std::string& override_path = "");

// `name` as seen from the directory of `from`.
std::string BesideFile(const std::string& from, const std::string& name);

}  // namespace imgfsck::vhd
