// SPDX-License-Identifier: Apache-2.0
#include "tools/imgfsck/page.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "base/parallel.h"
#include "base/text.h"
#include "io/file.h"
#include "tools/common/sandbox.h"
#include "triage/engine.h"
#include "triage/report/html.h"

namespace imgfsck {
namespace {

bool IsFolder(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

}  // namespace

Status CheckPagePath(const ImgfsckOptions& options) {
  struct stat info;
  if (options.report.empty() || lstat(options.report.c_str(), &info) != 0) return Ok();
  return Error{
      ErrorCode::kExists, Printable(options.report) + " exists already and is not overwritten", {}};
}

Status WritePage(const ImgfsckOptions& options) {
  TriageSettings settings;
  for (const std::string& image : options.images) {
    if (!IsFolder(image)) settings.paths.push_back(image);  // imgfsck looks through no folders
  }
  settings.fail_on = options.fail_on;
  settings.jobs = UsableCores();
  if (!options.no_sandbox) settings.sandbox = UsableSandbox("imgfsck", SandboxLevel::kReadFiles);
  settings.examine.pictures = true;
  settings.names = options.names;
  settings.examine.deep = options.repair_options.check.deep;
  settings.examine.max_findings = options.max_findings;
  IMG_ASSIGN_OR_RETURN(const TriageResult result, RunTriage(settings));
  IMG_ASSIGN_OR_RETURN(const auto file,
                       FileStore::Open(options.report, FileStore::Mode::kCreateNew));
  TextWriter out(file->fd());
  WriteHtml(result, result.files.size() == 1 && result.files.front().is_image(), out);
  IMG_RETURN_IF_ERROR(out.Finish());
  return file->Sync();
}

}  // namespace imgfsck
