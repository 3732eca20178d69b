# SPDX-License-Identifier: Apache-2.0
# llhttp as target sprout_llhttp: the system's libllhttp where there is one, else a static library from
# the C sources that Debian 12 ships in the package node-llhttp (folded into libsprout).

add_library(sprout_llhttp INTERFACE)
set(SPROUT_LLHTTP_BUNDLED OFF)

pkg_check_modules(LLHTTP QUIET IMPORTED_TARGET libllhttp)
if(LLHTTP_FOUND)
  target_link_libraries(sprout_llhttp INTERFACE PkgConfig::LLHTTP)
  return()
endif()

find_path(LLHTTP_SOURCE_DIR NAMES llhttp.c PATHS /usr/share/llhttp
          DOC "Folder of llhttp's api.c, http.c and llhttp.c")
find_path(LLHTTP_HEADER_DIR NAMES llhttp.h PATHS /usr/share/include/llhttp
          HINTS ${LLHTTP_SOURCE_DIR} DOC "Folder of llhttp.h")
if(NOT LLHTTP_SOURCE_DIR OR NOT LLHTTP_HEADER_DIR)
  message(FATAL_ERROR "llhttp not found: install libllhttp-dev, or on Debian 12 node-llhttp, "
                      "or set LLHTTP_SOURCE_DIR and LLHTTP_HEADER_DIR to a release's sources")
endif()

set(SPROUT_LLHTTP_BUNDLED ON)
add_library(llhttp STATIC ${LLHTTP_SOURCE_DIR}/api.c ${LLHTTP_SOURCE_DIR}/http.c
            ${LLHTTP_SOURCE_DIR}/llhttp.c)
target_include_directories(llhttp SYSTEM PUBLIC ${LLHTTP_HEADER_DIR})
# The switch changes the parser and the header alike, so who includes the header sees it too.
target_compile_definitions(llhttp PUBLIC LLHTTP_STRICT_MODE=1)
target_link_libraries(llhttp PRIVATE sprout_flags)
target_compile_options(llhttp PRIVATE -w) # generated code, not ours to warn about
target_link_libraries(sprout_llhttp INTERFACE llhttp)
