// SPDX-License-Identifier: Apache-2.0
// Loops over bytes that are worth a second translation for processors with wider registers. The
// program chooses when it is loaded. Nothing where the compiler or the C library cannot do it, or
// where a sanitizer is not ready yet when the choice is made.
#pragma once

#include <cstdlib>  // __GLIBC__

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__GLIBC__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define IMGFSCK_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define IMGFSCK_CLONES
#endif
