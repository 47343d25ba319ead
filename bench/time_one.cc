// SPDX-License-Identifier: Apache-2.0
// Runs one command with its output thrown away and prints, as one line of JSON, its exit status,
// wall time, processor time and peak memory. A small process of its own, because a child's peak
// memory starts at that of the process which forked it: a script's interpreter would hide it. With
// --cold FILE before the command, that file is first taken out of the page cache.
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>

namespace {

double Seconds(const timeval& t) {
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
}

bool Forget(const char* path) {
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  const bool done = fd >= 0 && fsync(fd) == 0 && posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0;
  if (!done) std::fprintf(stderr, "time_one: %s: cannot be taken out of the page cache\n", path);
  if (fd >= 0) close(fd);
  return done;
}

[[noreturn]] void RunChild(char** command) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);  // do not outlive the stopwatch
  int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
  if (null >= 0 && dup2(null, STDOUT_FILENO) >= 0 && dup2(null, STDERR_FILENO) >= 0) {
    execvp(command[0], command);
  }
  _exit(127);
}

}  // namespace

int main(int argc, char** argv) {
  char** command = argv + 1;
  if (argc > 3 && std::strcmp(argv[1], "--cold") == 0) {
    if (!Forget(argv[2])) return 8;
    command += 2;
  }
  if (*command == nullptr) {
    std::fprintf(stderr, "usage: time_one [--cold FILE] COMMAND [ARGUMENT...]\n");
    return 16;
  }
  const auto begin = std::chrono::steady_clock::now();
  const pid_t child = fork();
  if (child == 0) RunChild(command);
  int status = 0;
  rusage usage{};
  if (child < 0 || wait4(child, &status, 0, &usage) != child) {
    std::fprintf(stderr, "time_one: %s\n", std::strerror(errno));
    return 8;
  }
  const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - begin;
  std::printf("{\"status\": %d, \"wall\": %.6f, \"cpu\": %.6f, \"rss_kib\": %ld}\n",
              WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), wall.count(),
              Seconds(usage.ru_utime) + Seconds(usage.ru_stime), usage.ru_maxrss);
  return 0;
}
