// SPDX-License-Identifier: Apache-2.0
// imgio: guest-level I/O on virtual-disk images.
#include <fmt/format.h>

#include <cstdio>
#include <string_view>

#include "tools/common/exit_codes.h"
#include "tools/common/sandbox.h"
#include "tools/common/terminal.h"
#include "tools/imgio/commands.h"

namespace imgfsck {
namespace {

struct NamedCommand {
  std::string_view name;
  ImgioCommand run;
};
constexpr NamedCommand kCommands[] = {
    {"create", CreateCommand},     {"info", InfoCommand},       {"map", MapCommand},
    {"read", ReadCommand},         {"write", WriteCommand},     {"zero", ZeroCommand},
    {"discard", DiscardCommand},   {"compare", CompareCommand}, {"convert", ConvertCommand},
    {"resize", ResizeCommand},     {"commit", CommitCommand},   {"rebase", RebaseCommand},
    {"snapshot", SnapshotCommand}, {"bitmap", BitmapCommand},
};

int Run(int argc, char** argv) {
  ParsedImgio parsed = ParseImgio({argv + 1, argv + argc});
  if (parsed.exit_code) return PrintEnd(parsed);
  // Opens backing files on the way, and writes what was named.
  if (!parsed.options.no_sandbox) {
    PutOnSandbox("imgio", UsableSandbox("imgio", SandboxLevel::kWriteFiles));
  }
  for (const NamedCommand& command : kCommands) {
    if (command.name != parsed.options.command) continue;
    auto status = command.run(parsed.options);
    if (!status) {
      PrintMessage("imgio", "", status.error().message);
      return ExitCodeFor(status.error());
    }
    if (std::fflush(stdout) != 0) {
      PrintMessage("imgio", "", "standard output could not be written");
      return kExitFailed;
    }
    return *status;
  }
  return kExitUsage;
}

}  // namespace
}  // namespace imgfsck

int main(int argc, char** argv) { return imgfsck::RunTool("imgio", imgfsck::Run, argc, argv); }
