# SPDX-License-Identifier: Apache-2.0
# Programs that the end-to-end tests start.
add_executable(late_bytes ${CMAKE_CURRENT_SOURCE_DIR}/programs/late_bytes.c)
target_link_libraries(late_bytes PRIVATE sprout_shared)
if(SECCOMP_FOUND)
  add_executable(seccomp_run ${CMAKE_CURRENT_SOURCE_DIR}/programs/seccomp_run.c)
  target_link_libraries(seccomp_run PRIVATE test_environment)
endif()
