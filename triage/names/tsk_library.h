// SPDX-License-Identifier: Apache-2.0
// The Sleuth Kit's library, loaded when names are asked for: it needs forty other libraries, and to
// load them takes longer than to check an image of a terabyte.
#pragma once

#include <tsk/libtsk.h>

namespace imgfsck {

#define IMGFSCK_TSK_FUNCTIONS(DO) \
  DO(error_get)                   \
  DO(error_reset)                 \
  DO(fs_close)                    \
  DO(fs_dir_walk)                 \
  DO(fs_file_attr_get_idx)        \
  DO(fs_file_attr_get_type)       \
  DO(fs_file_attr_getsize)        \
  DO(fs_file_close)               \
  DO(fs_file_open_meta)           \
  DO(fs_open_img)                 \
  DO(fs_type_toname)              \
  DO(img_close)                   \
  DO(img_open_external)           \
  DO(vs_close)                    \
  DO(vs_open)                     \
  DO(vs_part_get)

// tsk_NAME() is called as Tsk()->NAME().
struct TskLibrary {
#define IMGFSCK_TSK_MEMBER(name) decltype(&tsk_##name) name = nullptr;
  IMGFSCK_TSK_FUNCTIONS(IMGFSCK_TSK_MEMBER)
#undef IMGFSCK_TSK_MEMBER
};

// Null where the library is missing. The first call loads it, which a sandbox forbids.
const TskLibrary* Tsk();

}  // namespace imgfsck
