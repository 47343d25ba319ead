// SPDX-License-Identifier: Apache-2.0
// imgfsck: checks and repairs virtual-disk images.
#include <fmt/format.h>
#include <unistd.h>

#include <fstream>

#include "base/interrupt.h"
#include "report/explain.h"
#include "tools/common/exit_codes.h"
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

// The first line's worth of a file: one trailing newline is dropped.
Result<std::string> ReadPassword(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(in)), {});
  if (!in) return Error{ErrorCode::kIo, "cannot read the passphrase from " + path, {}};
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

int Run(int argc, char** argv) {
  ParsedCommand command = ParseImgfsck({argv + 1, argv + argc});
  if (command.exit_code) {
    fmt::print(*command.exit_code == 0 ? stdout : stderr, "{}\n", command.text);
    return *command.exit_code;
  }
  ImgfsckOptions& options = command.options;
  if (!options.explain.empty() || options.list_problems) return ShowCatalogue(options);
  if (!options.password_file.empty()) {
    auto password = ReadPassword(options.password_file);
    if (!password) {
      PrintMessage("imgfsck", "", password.error().message);
      return kExitFailed;
    }
    options.repair_options.check.passphrase = *password;
  }
  std::unique_ptr<DatabaseFile> database;
  if (!options.db.empty()) {
    auto created = DatabaseFile::Create(options.db);
    if (!created) {
      PrintMessage("imgfsck", options.db, created.error().message);
      return kExitFailed;
    }
    database = std::move(*created);
  }
  Progress progress("imgfsck", options.progress);
  int status = 0;
  for (const std::string& path : options.images) {
    int one = RunOnImage(path, options, progress, database.get());
    status = options.exit_style == ExitStyle::kQemu ? std::max(status, one) : status | one;
    if (StopRequested()) return kExitStopped;
  }
  if (database != nullptr) {
    if (auto done = database->Finish(); !done) {
      PrintMessage("imgfsck", options.db, done.error().message);
      status |= kExitFailed;
    }
  }
  bool tool_failed = (status & (kExitFailed | kExitUsage | kExitStopped)) != 0;
  return options.exit_zero && !tool_failed ? 0 : status;
}

}  // namespace
}  // namespace imgfsck

int main(int argc, char** argv) { return imgfsck::RunTool("imgfsck", imgfsck::Run, argc, argv); }
