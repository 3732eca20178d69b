# SPDX-License-Identifier: Apache-2.0
# The module libsprout_rdma.so (target sprout_rdma), the only part that links libibverbs and librdmacm;
# the library loads it when RDMA is wanted. SPROUT_RDMA: AUTO builds it where these libraries are.

set(SPROUT_RDMA AUTO CACHE STRING "Build the RDMA module: AUTO, ON or OFF")
set_property(CACHE SPROUT_RDMA PROPERTY STRINGS AUTO ON OFF)

# Where it is installed, and that directory seen from the program's: an installed tree can be moved.
set(SPROUT_MODULE_DIR ${CMAKE_INSTALL_LIBDIR}/sprout)
cmake_path(ABSOLUTE_PATH CMAKE_INSTALL_FULL_LIBDIR NORMALIZE OUTPUT_VARIABLE module_dir)
cmake_path(APPEND module_dir sprout)
cmake_path(RELATIVE_PATH module_dir BASE_DIRECTORY ${CMAKE_INSTALL_FULL_BINDIR}
           OUTPUT_VARIABLE module_dir_from_program)
set_source_files_properties(
  net/rdma_module.c PROPERTIES COMPILE_DEFINITIONS
  "SPROUT_MODULE_DIR=\"${module_dir}\";SPROUT_MODULE_DIR_FROM_PROGRAM=\"${module_dir_from_program}\"")

set(SPROUT_HAVE_RDMA OFF)
if(NOT SPROUT_RDMA STREQUAL "AUTO" AND NOT SPROUT_RDMA)
  message(STATUS "RDMA module: off (SPROUT_RDMA=${SPROUT_RDMA})")
  return()
endif()

pkg_check_modules(VERBS QUIET IMPORTED_TARGET libibverbs>=1.14 librdmacm>=1.3)
if(NOT VERBS_FOUND)
  if(NOT SPROUT_RDMA STREQUAL "AUTO")
    message(FATAL_ERROR "SPROUT_RDMA=${SPROUT_RDMA} needs libibverbs and librdmacm: install "
                        "libibverbs-dev and librdmacm-dev (other distributions: rdma-core-devel)")
  endif()
  message(STATUS "RDMA module: no, libibverbs-dev and librdmacm-dev are not here")
  return()
endif()

message(STATUS "RDMA module: yes (libibverbs ${VERBS_libibverbs_VERSION}, "
               "librdmacm ${VERBS_librdmacm_VERSION})")
set(SPROUT_HAVE_RDMA ON)
file(GLOB module_sources CONFIGURE_DEPENDS net/verbs/*.c)
add_library(sprout_rdma MODULE ${module_sources})
target_include_directories(sprout_rdma PRIVATE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR})
target_link_libraries(sprout_rdma PRIVATE sprout_flags PkgConfig::VERBS Threads::Threads)
# Beside the program, where the loader looks first.
set_target_properties(sprout_rdma PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR})
if(NOT SPROUT_SANITIZE) # clang leaves the sanitizer's symbols to the program
  target_link_options(sprout_rdma PRIVATE -Wl,-z,defs)
endif()
