# SPDX-License-Identifier: Apache-2.0
# imgfsck_embed(FOLDER FILE NAME HEADER): FILE's text as the C++ constant NAME, which HEADER
# declares, in the library imgfsck_FOLDER.
function(imgfsck_embed folder file name header)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${file})
  file(READ ${PROJECT_SOURCE_DIR}/${file} text)
  set(generated ${PROJECT_BINARY_DIR}/generated/${name}.cc)
  file(CONFIGURE OUTPUT ${generated} @ONLY NEWLINE_STYLE UNIX CONTENT
"// Generated from @file@.
#include \"@header@\"
namespace imgfsck {
const char @name@[] = R\"EMBEDDED(@text@)EMBEDDED\";
}
")
  target_sources(imgfsck_${folder} PRIVATE ${generated})
endfunction()
