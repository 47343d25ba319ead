// SPDX-License-Identifier: Apache-2.0
// A filter over system calls (seccomp): what parses untrusted bytes gives up what it does not need,
// so that a bug in a parser is not yet a way into the machine. Without return: a filter stays for
// the rest of the process and for all that it starts. What a filter forbids fails with EPERM.
#pragma once

#include <initializer_list>

#include "base/result.h"

namespace imgfsck {

// None of the three lets a process connect to anything, start programs or other processes, look
// into other processes, or make memory executable. The names may be a part of any path.
enum class SandboxLevel {
  kNone,
  kSealed,      // opens nothing any more, writes to what was named only; may look at names (stat)
  kReadFiles,   // opens files for reading
  kWriteFiles,  // opens, makes, renames and removes files, as the user may
};

// False in builds with sanitizers or coverage, which call what a filter forbids when they end.
bool SandboxBuilt();

// Why no filter can be had here: a build without, a kernel or container that refuses.
Status SandboxSupported();

// `outputs`: the file descriptors that kSealed and kReadFiles may write to. To be called before
// threads are started.
Status EnterSandbox(SandboxLevel level, std::initializer_list<int> outputs);

}  // namespace imgfsck
