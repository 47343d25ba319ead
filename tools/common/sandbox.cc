// SPDX-License-Identifier: Apache-2.0
#include "tools/common/sandbox.h"

#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>

#include "base/interrupt.h"
#include "tools/common/exit_codes.h"
#include "tools/common/terminal.h"

namespace imgfsck {
namespace {

void SayWithout(std::string_view tool, const Error& error) {
  PrintMessage(tool, "", error.message + "; going on without it (--no-sandbox: the same, quietly)");
}

}  // namespace

SandboxLevel UsableSandbox(std::string_view tool, SandboxLevel wanted) {
  if (wanted == SandboxLevel::kNone || !SandboxBuilt()) return SandboxLevel::kNone;
  auto supported = SandboxSupported();
  if (supported) return wanted;
  SayWithout(tool, supported.error());
  return SandboxLevel::kNone;
}

void PutOnSandbox(std::string_view tool, SandboxLevel level, int extra) {
  auto status = extra < 0 ? EnterSandbox(level, {STDOUT_FILENO, STDERR_FILENO})
                          : EnterSandbox(level, {STDOUT_FILENO, STDERR_FILENO, extra});
  if (!status) SayWithout(tool, status.error());
}

int RunApart(std::string_view tool, const std::string& path, const std::function<int()>& work) {
  std::fflush(nullptr);
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child < 0) return work();  // then without a process of its own
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(kExitFailed);
    const int code = work();
    std::fflush(nullptr);
    _exit(code);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return kExitFailed;
    if (StopRequested()) kill(child, SIGTERM);
  }
  if (WIFEXITED(status)) return WEXITSTATUS(status);
  PrintMessage(tool, path, fmt::format("the examination was ended by signal {}", WTERMSIG(status)));
  return kExitFailed;
}

}  // namespace imgfsck
