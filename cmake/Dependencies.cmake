# SPDX-License-Identifier: Apache-2.0
# What the library needs from others, as one interface target (sprout_dependencies).

find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
pkg_check_modules(URING REQUIRED IMPORTED_TARGET liburing>=2.3)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash>=0.8)
pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson>=2.13)
# Upstream renamed the C library's module from msgpack to msgpack-c in version 6.
pkg_search_module(MSGPACK REQUIRED IMPORTED_TARGET msgpack-c msgpack>=3)
include(${CMAKE_CURRENT_LIST_DIR}/Llhttp.cmake)

add_library(sprout_dependencies INTERFACE)
target_link_libraries(sprout_dependencies INTERFACE PkgConfig::URING PkgConfig::XXHASH
                      PkgConfig::JANSSON PkgConfig::MSGPACK sprout_llhttp Threads::Threads
                      ${CMAKE_DL_LIBS})

# libxxhash picks the vector unit at run time only when entered through its dispatch header; that is
# three times the plain entry. Some packagings leave the dispatch out, so look for the symbol too.
include(CheckSymbolExists)
set(CMAKE_REQUIRED_INCLUDES ${XXHASH_INCLUDE_DIRS})
set(CMAKE_REQUIRED_LIBRARIES ${XXHASH_LINK_LIBRARIES})
check_symbol_exists(XXH3_128bits_dispatch xxh_x86dispatch.h SPROUT_HAVE_XXH_DISPATCH)
unset(CMAKE_REQUIRED_INCLUDES)
unset(CMAKE_REQUIRED_LIBRARIES)
if(SPROUT_HAVE_XXH_DISPATCH)
  target_compile_definitions(sprout_dependencies INTERFACE SPROUT_XXH_DISPATCH=1)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  message(WARNING "libxxhash has no x86 dispatch: digests run at a third of their speed")
endif()
