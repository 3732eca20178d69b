# SPDX-License-Identifier: Apache-2.0
# Measurements as gates: short ones by default, at their stated counts with SPROUT_TEST_FULL=1.
sprout_add_test(perf-tensors perf 300 Python3::Interpreter perf/tensors.py --check
                --binary $<TARGET_FILE:sprout>)
sprout_add_test(perf-loopback perf 900 Python3::Interpreter perf/loopback.py --check
                --binary $<TARGET_FILE:sprout>)
set_tests_properties(perf-tensors perf-loopback PROPERTIES RUN_SERIAL ON)

# Forks over RDMA, in the lab; skipped where there is none.
add_executable(many_forks ${PROJECT_SOURCE_DIR}/perf/many_forks.c)
target_link_libraries(many_forks PRIVATE sprout_shared)
sprout_add_test(perf-rdma perf 7200 Python3::Interpreter perf/rdma.py --check
                --binary $<TARGET_FILE:sprout> --many-forks $<TARGET_FILE:many_forks>)
set_tests_properties(perf-rdma PROPERTIES RUN_SERIAL ON)
