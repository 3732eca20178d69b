# SPDX-License-Identifier: Apache-2.0
# Measurements as gates: short ones by default, at their stated counts with SPROUT_TEST_FULL=1.
sprout_add_test(perf-tensors perf 300 Python3::Interpreter perf/tensors.py --check
                --binary $<TARGET_FILE:sprout>)
sprout_add_test(perf-loopback perf 900 Python3::Interpreter perf/loopback.py --check
                --binary $<TARGET_FILE:sprout>)
set_tests_properties(perf-tensors perf-loopback PROPERTIES RUN_SERIAL ON)

# What perf/rdma.py runs in the lab.
add_executable(many_forks ${PROJECT_SOURCE_DIR}/perf/many_forks.c)
target_link_libraries(many_forks PRIVATE sprout_shared)
