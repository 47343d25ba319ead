# SPDX-License-Identifier: Apache-2.0
# Compile time is nearly all spent in other people's headers: each target gets those that most of
# its sources use, compiled once. No header of the project is in here, so nothing is rebuilt for a
# change that it does not see, and every source still names what it includes.
option(IMGFSCK_PRECOMPILE "Precompile the standard library's and the dependencies' headers" ON)

# One compiled header serves every target with the same flags: imgfsck_precompile(TARGET SET).
# SET is `library` (standard library, fmt, expected) or `tests` (GoogleTest besides).
set(imgfsck_precompiled_library
    <algorithm> <array> <atomic> <bit> <charconv> <chrono> <cstdint> <cstring> <deque> <filesystem>
    <fstream> <functional> <map> <memory> <mutex> <optional> <random> <set> <span> <sstream>
    <string> <string_view> <thread> <unordered_map> <utility> <variant> <vector>
    <fmt/format.h> <tl/expected.hpp>)
set(imgfsck_precompiled_tests ${imgfsck_precompiled_library} <gmock/gmock.h> <gtest/gtest.h>)

function(imgfsck_precompile target set)
  if(NOT IMGFSCK_PRECOMPILE)
    return()
  endif()
  if(TARGET imgfsck_precompiled_${set})
    target_precompile_headers(${target} REUSE_FROM imgfsck_precompiled_${set})
    return()
  endif()
  file(WRITE ${PROJECT_BINARY_DIR}/generated/precompiled_${set}.cc "")
  add_library(imgfsck_precompiled_${set} OBJECT
              ${PROJECT_BINARY_DIR}/generated/precompiled_${set}.cc)
  target_link_libraries(imgfsck_precompiled_${set} PRIVATE imgfsck_flags fmt::fmt tl::expected
                        Threads::Threads)
  if(set STREQUAL tests)
    target_link_libraries(imgfsck_precompiled_${set} PRIVATE imgfsck_test_flags
                          GTest::gtest GTest::gmock)
  endif()
  if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    # Times of the headers would make the result differ from one clone to the next.
    target_compile_options(imgfsck_precompiled_${set} PRIVATE
                           "SHELL:-Xclang -fno-pch-timestamp")
  endif()
  target_precompile_headers(imgfsck_precompiled_${set} PRIVATE ${imgfsck_precompiled_${set}})
  target_precompile_headers(${target} REUSE_FROM imgfsck_precompiled_${set})
endfunction()
