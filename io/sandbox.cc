// SPDX-License-Identifier: Apache-2.0
// The lists name what the tools and the libraries under them (libc, libstdc++, SQLite, OpenSSL)
// call; the tests run every option inside. Calls whose arguments a filter cannot see (clone3,
// openat2) fail with ENOSYS, and libc then takes their forerunners.
#include "io/sandbox.h"

#if IMGFSCK_SANDBOX

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fiemap.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/seccomp.h>
#include <openssl/crypto.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstddef>
#include <vector>

namespace imgfsck {
namespace {

// Memory, threads, time, signals, one's own file descriptors; and questions about names.
constexpr const char* kAlways[] = {
    // what is open
    "read", "pread64", "readv", "preadv", "preadv2", "lseek", "_llseek", "close", "close_range",
    "fstat", "fstat64", "fstatfs", "fstatfs64", "fcntl", "fcntl64", "fadvise64", "fadvise64_64",
    "arm_fadvise64_64", "readahead", "poll", "ppoll", "ppoll_time64", "dup",
    // names
    "stat", "stat64", "lstat", "lstat64", "newfstatat", "fstatat64", "statx", "statfs", "statfs64",
    "access", "faccessat", "faccessat2", "readlink", "readlinkat", "getcwd",
    // memory
    "brk", "munmap", "mremap", "madvise", "mlock", "munlock", "membarrier", "msync", "mincore",
    // threads
    "futex", "futex_time64", "futex_waitv", "set_robust_list", "get_robust_list", "set_tid_address",
    "rseq", "sched_yield", "sched_getaffinity", "sched_getparam", "sched_getscheduler", "gettid",
    "exit", "arch_prctl",
    // time
    "clock_gettime", "clock_gettime64", "clock_getres", "clock_getres_time64", "clock_nanosleep",
    "clock_nanosleep_time64", "nanosleep", "gettimeofday", "time", "times", "getitimer",
    // signals
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigreturn", "sigaltstack", "rt_sigpending",
    "restart_syscall", "pause",
    // oneself
    "exit_group", "getpid", "getppid", "getuid", "geteuid", "getgid", "getegid", "getresuid",
    "getresgid", "getgroups", "getpgrp", "getrlimit", "ugetrlimit", "getrusage", "sysinfo", "uname",
    "getrandom", "getcpu", "umask"};

// What a file is made, written and found with.
constexpr const char* kWriting[] = {"open",
                                    "openat",
                                    "creat",
                                    "write",
                                    "pwrite64",
                                    "writev",
                                    "pwritev",
                                    "pwritev2",
                                    "fsync",
                                    "fdatasync",
                                    "sync_file_range",
                                    "syncfs",
                                    "ftruncate",
                                    "ftruncate64",
                                    "truncate",
                                    "truncate64",
                                    "fallocate",
                                    "copy_file_range",
                                    "sendfile",
                                    "sendfile64",
                                    "unlink",
                                    "unlinkat",
                                    "rename",
                                    "renameat",
                                    "renameat2",
                                    "link",
                                    "linkat",
                                    "symlink",
                                    "symlinkat",
                                    "mkdir",
                                    "mkdirat",
                                    "rmdir",
                                    "getdents",
                                    "getdents64",
                                    "fchmod",
                                    "fchown",
                                    "fchown32",
                                    "utimensat",
                                    "utimensat_time64",
                                    "futimesat",
                                    "utimes",
                                    "utime",
                                    "flock",
                                    "chdir",
                                    "fchdir",
                                    "fgetxattr",
                                    "fsetxattr",
                                    "flistxattr",
                                    "getxattr",
                                    "lgetxattr"};

// An argument of a call, the bits of `mask`, must have this value.
struct Argument {
  unsigned number;
  uint64_t mask, value;
};

// The program that the kernel runs before each call. libseccomp only says what number a call has
// and which architecture this is: its own compiler (2.5) loops for ever or crashes when it gets no
// memory.
class Filter {
 public:
  Filter() {
    Load(offsetof(seccomp_data, arch));
    Unless(seccomp_arch_native(), 1);
    program_.push_back(BPF_JUMP(BPF_JMP | BPF_JA, 1, 0, 0));
    Answer(SECCOMP_RET_KILL_PROCESS);
  }

  void Allow(const char* name) { Rule(SECCOMP_RET_ALLOW, name, {}); }
  void Allow(const char* name, std::initializer_list<Argument> arguments) {
    Rule(SECCOMP_RET_ALLOW, name, arguments);
  }
  void Missing(const char* name) { Rule(SECCOMP_RET_ERRNO | ENOSYS, name, {}); }

  // 0, or errno. All other calls fail with EPERM.
  int Install() {
    Answer(SECCOMP_RET_ERRNO | EPERM);
    const sock_fprog whole = {static_cast<uint16_t>(program_.size()), program_.data()};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return errno;
    // No need to slow this process down: it keeps no secret from itself.
    constexpr unsigned long kFlags = SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, kFlags, &whole) == 0) return 0;
    if (errno != EINVAL) return errno;  // EINVAL: a kernel that has no such flag
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0UL, &whole) == 0 ? 0 : errno;
  }

 private:
  void Load(size_t offset) {
    program_.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset)));
  }
  void Answer(uint32_t what) { program_.push_back(BPF_STMT(BPF_RET | BPF_K, what)); }
  // Leaves out so many instructions unless what was loaded has this value.
  void Unless(uint32_t value, size_t skipped) {
    program_.push_back(
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, static_cast<uint8_t>(skipped)));
  }

  void Rule(uint32_t action, const char* name, std::initializer_list<Argument> arguments) {
    const int call = seccomp_syscall_resolve_name(name);
    if (call < 0) return;        // this architecture does not have it
    constexpr size_t kHalf = 3;  // instructions
    size_t left = 2 * kHalf * arguments.size() + 1;
    if (!number_loaded_) Load(offsetof(seccomp_data, nr));
    number_loaded_ = arguments.size() == 0;
    Unless(static_cast<uint32_t>(call), left);
    for (const Argument& argument : arguments) {
      for (const bool high : {false, true}) {
        const bool second = high == (std::endian::native == std::endian::little);
        const unsigned shift = high ? 32 : 0;
        left -= kHalf;
        Load(offsetof(seccomp_data, args) + 8 * argument.number + (second ? 4 : 0));
        program_.push_back(
            BPF_STMT(BPF_ALU | BPF_AND | BPF_K, static_cast<uint32_t>(argument.mask >> shift)));
        Unless(static_cast<uint32_t>(argument.value >> shift), left);
      }
    }
    Answer(action);
  }

  std::vector<sock_filter> program_;
  bool number_loaded_ = false;
};

Argument Equal(unsigned argument, uint64_t value) { return {argument, UINT64_MAX, value}; }
Argument Bits(unsigned argument, uint64_t mask, uint64_t value) { return {argument, mask, value}; }

void AllowMemoryAndThreads(Filter* filter) {
  for (const char* call : {"mmap", "mmap2", "mprotect"}) {
    filter->Allow(call, {Bits(2, PROT_EXEC, 0)});
  }
  filter->Allow("clone", {Bits(0, CLONE_THREAD | CLONE_VM, CLONE_THREAD | CLONE_VM)});
  filter->Missing("clone3");
  filter->Missing("openat2");
  // abort() sends itself a signal.
  const auto self = static_cast<uint64_t>(getpid());
  filter->Allow("tgkill", {Equal(0, self)});
  filter->Allow("kill", {Equal(0, self)});
  filter->Allow("prlimit64", {Equal(0, 0), Equal(2, 0)});
  for (const uint64_t request :
       std::initializer_list<uint64_t>{TCGETS, BLKGETSIZE64, FS_IOC_FIEMAP}) {
    filter->Allow("ioctl", {Equal(1, request)});
  }
}

void AllowReading(Filter* filter) {
  constexpr uint64_t kWrites = O_ACCMODE | O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY);
  filter->Allow("open", {Bits(1, kWrites, O_RDONLY)});
  filter->Allow("openat", {Bits(2, kWrites, O_RDONLY)});
  for (const char* call : {"getdents", "getdents64"}) filter->Allow(call);
}

void AllowWriting(Filter* filter) {
  for (const char* call : kWriting) filter->Allow(call);
  for (const uint64_t request :
       std::initializer_list<uint64_t>{FICLONE, FICLONERANGE, BLKDISCARD, BLKZEROOUT}) {
    filter->Allow("ioctl", {Equal(1, request)});
  }
}

Error Refused(int os_error) {
  return ErrorFromErrno(os_error, "the system call filter could not be set up");
}

}  // namespace

bool SandboxBuilt() { return true; }

Status SandboxSupported() {
  // A filter without an address: where filters are to be had at all, the address is what is wrong.
  if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, nullptr) != 0 && errno == EFAULT) {
    return Ok();
  }
  return Refused(errno == 0 ? ENOSYS : errno);
}

Status EnterSandbox(SandboxLevel level, std::initializer_list<int> outputs) {
  if (level == SandboxLevel::kNone) return Ok();
  IMG_RETURN_IF_ERROR(SandboxSupported());
  // Reads its configuration the first time that it is used, which might be inside.
  if (level == SandboxLevel::kSealed) OPENSSL_init_crypto(OPENSSL_INIT_LOAD_CONFIG, nullptr);
  Filter filter;
  for (const char* call : kAlways) filter.Allow(call);
  AllowMemoryAndThreads(&filter);
  if (level == SandboxLevel::kWriteFiles) {
    AllowWriting(&filter);
  } else {
    for (const char* call : {"write", "writev"}) {
      for (const int fd : outputs) filter.Allow(call, {Equal(0, static_cast<unsigned>(fd))});
    }
    if (level == SandboxLevel::kReadFiles) AllowReading(&filter);
  }
  if (const int os_error = filter.Install(); os_error != 0) return Refused(os_error);
  return Ok();
}

}  // namespace imgfsck

#else

namespace imgfsck {

bool SandboxBuilt() { return false; }

Status SandboxSupported() {
  return Error{ErrorCode::kUnsupported, "this build has no system call filter", {}};
}

Status EnterSandbox(SandboxLevel level, std::initializer_list<int>) {
  return level == SandboxLevel::kNone ? Ok() : SandboxSupported();
}

}  // namespace imgfsck

#endif
