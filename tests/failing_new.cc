// SPDX-License-Identifier: Apache-2.0
// Preloaded into a program under test: the n-th allocation of a kind fails, once, from when the
// program has said what to do when a `new` fails. IMGFSCK_ALLOCATIONS names a file of three
// numbers: which one fails (0: none); how many there were, in all processes of the program
// together; and the kind (0: `new`; 1: what C libraries ask malloc() and its kin for).
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

extern "C" {
// glibc's own, by names that nobody puts others in place of.
void* __libc_malloc(std::size_t size);
void* __libc_calloc(std::size_t count, std::size_t size);
void* __libc_realloc(void* place, std::size_t size);
void* __libc_memalign(std::size_t alignment, std::size_t size);
}

namespace {

enum Kind : uint64_t { kNew, kMalloc };

struct State {
  std::atomic<uint64_t> failing, made, kind;
};

State* state = nullptr;
std::atomic<bool> armed{false};

// Counts one; whether it is the one that fails.
bool Fails(Kind kind) {
  return armed.load() && state->kind.load() == kind &&
         state->made.fetch_add(1) + 1 == state->failing.load();
}

bool MallocFails() {
  if (!Fails(kMalloc)) return false;
  errno = ENOMEM;
  return true;
}

void* Allocate(std::size_t size) {
  void* place = Fails(kNew) ? nullptr : __libc_malloc(size);
  while (place == nullptr) {
    std::new_handler handler = std::get_new_handler();
    if (handler == nullptr) throw std::bad_alloc();
    handler();
    place = __libc_malloc(size);
  }
  return place;
}

}  // namespace

std::new_handler std::set_new_handler(std::new_handler handler) noexcept {
  using Function = std::new_handler (*)(std::new_handler);
  auto real = reinterpret_cast<Function>(dlsym(RTLD_NEXT, "_ZSt15set_new_handlerPFvvE"));
  std::new_handler old = real(handler);
  const char* name = std::getenv("IMGFSCK_ALLOCATIONS");
  const int fd = name == nullptr ? -1 : open(name, O_RDWR | O_CLOEXEC);
  if (fd < 0) return old;
  void* shared = mmap(nullptr, sizeof(State), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (shared == MAP_FAILED) return old;
  state = static_cast<State*>(shared);
  armed = true;
  return old;
}

void* operator new(std::size_t size) { return Allocate(size); }
void* operator new[](std::size_t size) { return Allocate(size); }
void operator delete(void* place) noexcept { std::free(place); }
void operator delete[](void* place) noexcept { std::free(place); }
void operator delete(void* place, std::size_t) noexcept { std::free(place); }
void operator delete[](void* place, std::size_t) noexcept { std::free(place); }

extern "C" {

void* malloc(std::size_t size) noexcept { return MallocFails() ? nullptr : __libc_malloc(size); }

void* calloc(std::size_t count, std::size_t size) noexcept {
  return MallocFails() ? nullptr : __libc_calloc(count, size);
}

void* realloc(void* place, std::size_t size) noexcept {
  return MallocFails() ? nullptr : __libc_realloc(place, size);
}

void* memalign(std::size_t alignment, std::size_t size) noexcept {
  return MallocFails() ? nullptr : __libc_memalign(alignment, size);
}

void* aligned_alloc(std::size_t alignment, std::size_t size) noexcept {
  return memalign(alignment, size);
}

int posix_memalign(void** place, std::size_t alignment, std::size_t size) noexcept {
  if (Fails(kMalloc)) return ENOMEM;
  *place = __libc_memalign(alignment, size);
  return *place == nullptr ? ENOMEM : 0;
}

}  // extern "C"
