# SPDX-License-Identifier: Apache-2.0
# One library a folder, one program a file of tools/: nothing to list twice.

add_library(imgfsck_flags INTERFACE)
target_compile_options(imgfsck_flags INTERFACE -Wall -Wextra -Wconversion -Wshadow -Werror)
if(IMGFSCK_PRECOMPILE AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # g++ forgets `#pragma GCC diagnostic` in precompiled headers, and libstdc++ has
  # need of it: these four then fire on nearly every std::string. scripts/test.sh --long builds
  # without precompiled headers and with these warnings.
  target_compile_options(imgfsck_flags INTERFACE -Wno-restrict -Wno-array-bounds
                         -Wno-stringop-overflow -Wno-stringop-overread)
endif()
target_include_directories(imgfsck_flags INTERFACE ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR})
target_compile_definitions(imgfsck_flags INTERFACE IMGFSCK_VERSION="${PROJECT_VERSION}"
                           _FILE_OFFSET_BITS=64)

# A build for once compiles faster with a dozen sources in one; then two files of a folder cannot
# give one name, even a hidden one, to two things. For folders where each keeps to that.
option(IMGFSCK_UNITY "Compile several source files as one, where the folder allows it" OFF)
set(imgfsck_unity_folders base io model formats chain analyzers repair report triage toolkit)
function(imgfsck_unity target folder)
  if(IMGFSCK_UNITY AND folder IN_LIST imgfsck_unity_folders)
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 12)
  endif()
endfunction()

# imgfsck_library(FOLDER LINK target...): imgfsck_FOLDER from every .cc below FOLDER.
function(imgfsck_library folder)
  cmake_parse_arguments(arg "" "" "LINK" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${folder}/*.cc)
  if(NOT sources)
    add_library(imgfsck_${folder} INTERFACE)
    target_link_libraries(imgfsck_${folder} INTERFACE imgfsck_flags ${arg_LINK})
    return()
  endif()
  add_library(imgfsck_${folder} STATIC ${sources})
  target_link_libraries(imgfsck_${folder} PUBLIC ${arg_LINK} PRIVATE imgfsck_flags)
  imgfsck_precompile(imgfsck_${folder} library)
  imgfsck_unity(imgfsck_${folder} ${folder})
  target_include_directories(imgfsck_${folder} PUBLIC ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR})
  set_target_properties(imgfsck_${folder} PROPERTIES ARCHIVE_OUTPUT_DIRECTORY
                        ${PROJECT_BINARY_DIR}/lib)
endfunction()

# A tool is tools/NAME.cc; what several tools share is tools/common/*.cc.
function(imgfsck_tools)
  cmake_parse_arguments(arg "" "" "LINK" ${ARGN})
  file(GLOB_RECURSE shared CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tools/*/*.cc)
  file(GLOB mains CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tools/*.cc)
  # Reading a command line need not be fast, and to optimise the parser takes a minute a build.
  set(parsers ${shared})
  list(FILTER parsers INCLUDE REGEX "/options\\.cc$")
  set_source_files_properties(${parsers} PROPERTIES COMPILE_OPTIONS -O0
                              SKIP_PRECOMPILE_HEADERS ON)
  if(shared)
    add_library(imgfsck_toolkit STATIC ${shared})
    target_link_libraries(imgfsck_toolkit PUBLIC ${arg_LINK} PRIVATE imgfsck_flags)
    imgfsck_precompile(imgfsck_toolkit library)
    imgfsck_unity(imgfsck_toolkit toolkit)
    list(APPEND arg_LINK imgfsck_toolkit)
  endif()
  foreach(main ${mains})
    get_filename_component(name ${main} NAME_WE)
    add_executable(${name} ${main})
    target_link_libraries(${name} PRIVATE imgfsck_flags ${arg_LINK})
    imgfsck_precompile(${name} library)
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
    install(TARGETS ${name} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  endforeach()
endfunction()
