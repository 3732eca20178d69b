# SPDX-License-Identifier: Apache-2.0
# The simulated forks: a sample by default, many with SPROUT_TEST_FULL=1 in the environment.

sprout_add_test(sim-fork sim 600 ${CMAKE_CURRENT_SOURCE_DIR}/sim/run.sh $<TARGET_FILE:sim_fork>)
