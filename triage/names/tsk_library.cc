// SPDX-License-Identifier: Apache-2.0
#ifdef IMGFSCK_HAVE_TSK
#include "triage/names/tsk_library.h"

#include <dlfcn.h>

#include <optional>

namespace imgfsck {
namespace {

std::optional<TskLibrary> Load() {
  void* handle = dlopen(IMGFSCK_TSK_SONAME, RTLD_NOW | RTLD_LOCAL);  // never closed
  if (handle == nullptr) return std::nullopt;
  TskLibrary library;
#define IMGFSCK_TSK_LOAD(name)                                                          \
  library.name = reinterpret_cast<decltype(library.name)>(dlsym(handle, "tsk_" #name)); \
  if (library.name == nullptr) return std::nullopt;
  IMGFSCK_TSK_FUNCTIONS(IMGFSCK_TSK_LOAD)
#undef IMGFSCK_TSK_LOAD
  return library;
}

}  // namespace

const TskLibrary* Tsk() {
  static const std::optional<TskLibrary> library = Load();
  return library ? &*library : nullptr;
}

}  // namespace imgfsck
#endif  // IMGFSCK_HAVE_TSK
