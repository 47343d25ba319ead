// SPDX-License-Identifier: Apache-2.0
// The filter over system calls, as the tools put it on. Where there is none to be had a message
// says so, and the work goes on without.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "io/sandbox.h"

namespace imgfsck {

// `wanted`, or kNone where no filter can be had.
SandboxLevel UsableSandbox(std::string_view tool, SandboxLevel wanted);

// Puts the filter on, with standard output, standard error and `extra` (a descriptor; -1: none)
// left open.
void PutOnSandbox(std::string_view tool, SandboxLevel level, int extra = -1);

// Runs `work` in a process of its own, which may close itself up for good, and returns its exit
// status. A crash is reported and is kExitFailed; a stop signal is passed on.
int RunApart(std::string_view tool, const std::string& path, const std::function<int()>& work);

}  // namespace imgfsck
