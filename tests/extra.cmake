# SPDX-License-Identifier: Apache-2.0
# Programs that the end-to-end tests start.
add_executable(late_bytes ${CMAKE_CURRENT_SOURCE_DIR}/programs/late_bytes.c)
target_link_libraries(late_bytes PRIVATE sprout_shared)
