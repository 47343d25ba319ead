// SPDX-License-Identifier: Apache-2.0
// imgfsck: checks and repairs virtual-disk images.
#include <fmt/format.h>
#include <unistd.h>

#include "base/interrupt.h"
#include "report/explain.h"
#include "tools/common/exit_codes.h"
#include "tools/common/passphrase.h"
#include "tools/common/sandbox.h"
#include "tools/imgfsck/page.h"
#include "tools/imgfsck/run.h"

namespace imgfsck {
namespace {

int ShowCatalogue(const ImgfsckOptions& options) {
  TextWriter out(STDOUT_FILENO);
  if (!options.explain.empty()) {
    WriteExplanation(*FindProblem(options.explain), out);
  } else if (options.json) {
    WriteProblemListJson(out);
  } else {
    WriteProblemList(out);
  }
  return out.Finish() ? kExitClean : kExitFailed;
}

int Fail(const std::string& path, const Error& error) {
  PrintMessage("imgfsck", path, error.message);
  return ExitCodeFor(error);
}

// The statuses of two images as one: fsck's bits are OR-ed; of qemu-img's codes the graver stays.
int Joined(ExitStyle style, int a, int b) {
  if (style == ExitStyle::kFsck) return a | b;
  for (int code : {kExitUsage, 1, 63, 2, 3}) {
    if (a == code || b == code) return code;
  }
  return 0;
}

// Everything but the page.
int RunOnImages(const ImgfsckOptions& options) {
  const SandboxLevel sandbox = UsableSandbox("imgfsck", options.sandbox());
  const bool seal = sandbox == SandboxLevel::kSealed;
  std::unique_ptr<NameServer> names;
  if (options.names) {
    const auto level = options.no_sandbox ? SandboxLevel::kNone : SandboxLevel::kReadFiles;
    auto started = NameServer::Start(UsableSandbox("imgfsck", level));
    if (!started) return Fail("", started.error());
    names = std::move(*started);
  }
  if (!seal) PutOnSandbox("imgfsck", sandbox, names ? names->fd() : -1);
  std::unique_ptr<DatabaseFile> database;
  if (!options.db.empty()) {
    auto created = DatabaseFile::Create(options.db);
    if (!created) return Fail(options.db, created.error());
    database = std::move(*created);
  }
  std::optional<NameTables> tables;
  if (database && names) {
    auto made = NameTables::Create(database->db());
    if (!made) return Fail(options.db, made.error());
    tables = std::move(*made);
  }
  Progress progress("imgfsck", options.progress);
  int status = 0;
  RunContext context{progress,
                     database.get(),
                     1,
                     static_cast<int64_t>(options.images.size()) + 1,
                     seal,
                     names.get(),
                     tables ? &*tables : nullptr};
  for (size_t i = 0; i < options.images.size(); ++i) {
    const std::string& image = options.images[i];
    context.image_id = static_cast<int64_t>(i + 1);
    const auto work = [&] { return RunOnImage(image, options, context); };
    // What is closed up for one image could not open the next.
    const bool apart = seal && options.images.size() > 1;
    const int one = apart ? RunApart("imgfsck", image, work) : work();
    if (one == kExitStopped) return kExitStopped;
    status = Joined(options.exit_style, status, one);
  }
  if (database != nullptr) {
    if (auto done = database->Finish(); !done) return Fail(options.db, done.error());
  }
  return status;
}

int Run(int argc, char** argv) {
  ParsedImgfsck command = ParseImgfsck({argv + 1, argv + argc});
  if (command.exit_code) return PrintEnd(command);
  ImgfsckOptions& options = command.options;
  if (!options.explain.empty() || options.list_problems) return ShowCatalogue(options);
  if (!options.password_file.empty()) {
    auto password = ReadPassphrase(options.password_file);
    if (!password) return Fail("", password.error());
    options.repair_options.check.passphrase = *password;
  }
  if (auto free = CheckPagePath(options); !free) return Fail("", free.error());
  // Under a filter no process could be started, and the page needs some.
  const auto work = [&] { return RunOnImages(options); };
  int status = options.report.empty() ? work() : RunApart("imgfsck", "", work);
  if (status == kExitStopped) return status;
  if (!options.report.empty()) {
    if (auto done = WritePage(options); !done) {
      status = Joined(options.exit_style, status, Fail(options.report, done.error()));
    }
  }
  const bool qemu = options.exit_style == ExitStyle::kQemu;
  const bool tool_failed = qemu ? status == 1 || status == 63 || status == kExitUsage
                                : (status & (kExitFailed | kExitUsage)) != 0;
  return options.exit_zero && !tool_failed ? 0 : status;
}

}  // namespace
}  // namespace imgfsck

int main(int argc, char** argv) { return imgfsck::RunTool("imgfsck", imgfsck::Run, argc, argv); }
