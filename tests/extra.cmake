# SPDX-License-Identifier: Apache-2.0
# Programs and libraries that the end-to-end tests start or preload.
add_executable(late_bytes ${CMAKE_CURRENT_SOURCE_DIR}/programs/late_bytes.c)
target_link_libraries(late_bytes PRIVATE sprout_shared)
add_executable(updating_seed ${CMAKE_CURRENT_SOURCE_DIR}/programs/updating_seed.c)
target_link_libraries(updating_seed PRIVATE sprout_shared)
add_executable(seed_house ${CMAKE_CURRENT_SOURCE_DIR}/programs/seed_house.c)
target_link_libraries(seed_house PRIVATE sprout_shared)

if(SECCOMP_FOUND)
  add_executable(seccomp_run ${CMAKE_CURRENT_SOURCE_DIR}/programs/seccomp_run.c)
  target_link_libraries(seccomp_run PRIVATE test_environment)
endif()

# Interposing the allocator and a sanitizer exclude each other.
if(NOT SPROUT_SANITIZE)
  add_library(fail_alloc MODULE ${CMAKE_CURRENT_SOURCE_DIR}/programs/fail_alloc.c)
  target_compile_definitions(fail_alloc PRIVATE _GNU_SOURCE)
  target_compile_options(fail_alloc PRIVATE -fno-builtin -Wno-missing-prototypes)
endif()

# The verbs layer against real devices; lies beside the module, where the loader looks.
if(SPROUT_HAVE_RDMA)
  add_executable(verbs_check ${CMAKE_CURRENT_SOURCE_DIR}/programs/verbs_check.c)
  target_link_libraries(verbs_check PRIVATE sprout_objects test_environment)
  set_target_properties(verbs_check PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR})
  add_dependencies(verbs_check sprout_rdma)
  if(NOT SPROUT_SANITIZE AND NOT SPROUT_COVERAGE)
    sprout_add_test(module install 60 ${CMAKE_CURRENT_SOURCE_DIR}/install/module.sh
                    $<TARGET_FILE:verbs_check> $<TARGET_FILE:sprout> $<TARGET_FILE:sprout_rdma>
                    ${CMAKE_C_COMPILER})
  endif()
endif()

# One who keeps to none of a seed's rules; knows nothing of sprout.
if(SPROUT_HAVE_RDMA)
  add_executable(rdma_intruder ${CMAKE_CURRENT_SOURCE_DIR}/programs/rdma_intruder.c)
  target_link_libraries(rdma_intruder PRIVATE sprout_flags PkgConfig::VERBS)
endif()
