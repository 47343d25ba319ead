// SPDX-License-Identifier: Apache-2.0
// imgtriage: many disk images, one picture of where to look first. Read-only.
#include <fmt/format.h>
#include <unistd.h>

#include "base/text_writer.h"
#include "tools/common/exit_codes.h"
#include "tools/common/terminal.h"
#include "tools/imgtriage/run.h"
#include "triage/reasons.h"

namespace imgfsck {
namespace {

int Run(int argc, char** argv) {
  const ParsedImgtriage command = ParseImgtriage({argv + 1, argv + argc});
  if (command.exit_code) return PrintEnd(command);
  if (command.options.list_reasons) {
    TextWriter out(STDOUT_FILENO);
    for (const ReasonInfo& info : AllReasons()) {
      out.Put(fmt::format("{}: {}\n", info.name, info.what));
    }
    return out.Finish() ? kExitClean : kExitFailed;
  }
  return RunImgtriage(command.options);
}

}  // namespace
}  // namespace imgfsck

int main(int argc, char** argv) { return imgfsck::RunTool("imgtriage", imgfsck::Run, argc, argv); }
