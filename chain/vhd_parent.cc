// SPDX-License-Identifier: Apache-2.0
#include "chain/vhd_parent.h"

#include <fmt/format.h>

#include <optional>

#include "chain/gate.h"

namespace imgfsck::vhd {
namespace {

// `named`: by the image itself, and so not to be trusted.
Result<Parent> Try(const Image& child, const std::string& path, bool named) {
  Parent parent;
  parent.path = path;
  IMG_ASSIGN_OR_RETURN(parent.file, named ? OpenNamed(path) : FileSource::Open(path));
  IMG_ASSIGN_OR_RETURN(parent.identity, parent.file->Identity());
  parent.fit = FitOfParent(child, *parent.file);
  if (parent.fit == ParentFit::kFits || parent.fit == ParentFit::kOtherId) {
    IMG_ASSIGN_OR_RETURN(parent.image, ParseImage(*parent.file, {.policy = child.policy}));
  }
  return parent;
}

bool Fits(const Parent& parent) {
  return parent.fit == ParentFit::kFits || parent.fit == ParentFit::kRawFits;
}

}  // namespace

std::string BesideFile(const std::string& from, const std::string& name) {
  size_t slash = from.rfind('/');
  if (name.starts_with('/') || slash == std::string::npos) return name;
  return from.substr(0, slash + 1) + name;
}

Result<Parent> ResolveParent(const Image& child, const std::string& child_path,
                             const std::string& override_path) {
  if (!override_path.empty()) return Try(child, override_path, false);
  std::optional<Parent> wrong;
  for (const std::string& name : ParentCandidates(child)) {
    if (name.starts_with("//")) continue;  // a share of another machine
    auto parent = Try(child, BesideFile(child_path, name), true);
    if (!parent) continue;
    if (Fits(*parent)) return std::move(*parent);
    if (!wrong) wrong = std::move(*parent);
  }
  if (wrong) return std::move(*wrong);
  return Error{ErrorCode::kNotFound, "no file was found under any name of the parent", {}};
}

}  // namespace imgfsck::vhd
