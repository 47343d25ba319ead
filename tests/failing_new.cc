// SPDX-License-Identifier: Apache-2.0
// Preloaded into a program under test: the n-th `new` fails, once, from when the program has said
// what to do then. IMGFSCK_ALLOCATIONS names a file of two numbers: which one fails (0: none), and
// how many there were, in all processes of the program together. What C libraries allocate by
// malloc() is not touched: libseccomp 2.5 and libcrypto 3.0 crash when that fails.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace {

struct State {
  std::atomic<uint64_t> failing, made;
};

State* state = nullptr;
std::atomic<bool> armed{false};

void* Allocate(std::size_t size) {
  void* place = nullptr;
  if (!armed.load() || state->made.fetch_add(1) + 1 != state->failing.load()) {
    place = std::malloc(size);
  }
  while (place == nullptr) {
    std::new_handler handler = std::get_new_handler();
    if (handler == nullptr) throw std::bad_alloc();
    handler();
    place = std::malloc(size);
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
