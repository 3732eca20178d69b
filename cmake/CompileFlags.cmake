# SPDX-License-Identifier: Apache-2.0
# Language, warnings, hardening and instrumentation, for every target of this project (sprout_flags).

set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS ON)
set(CMAKE_C_VISIBILITY_PRESET hidden)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
include(CheckPIESupported)
check_pie_supported(LANGUAGES C)

# Assertions stay on in every build, and -O2 is as far as we trust the optimiser.
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release)
endif()
foreach(config IN ITEMS RELEASE RELWITHDEBINFO MINSIZEREL)
  string(REPLACE "-DNDEBUG" "" CMAKE_C_FLAGS_${config} "${CMAKE_C_FLAGS_${config}}")
  string(REPLACE "-O3" "-O2" CMAKE_C_FLAGS_${config} "${CMAKE_C_FLAGS_${config}}")
endforeach()

add_library(sprout_flags INTERFACE)
target_compile_definitions(sprout_flags INTERFACE _GNU_SOURCE=
                           $<$<BOOL:${SPROUT_FAULTS}>:SPROUT_FAULTS=1>)
target_compile_options(sprout_flags INTERFACE
  -Wall -Wextra -Wshadow -Wpointer-arith -Wwrite-strings -Wformat=2 -Wundef -Wvla -Walloca
  -Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition -Wimplicit-fallthrough
  -Werror=implicit-function-declaration -Werror=incompatible-pointer-types
  -Werror=int-conversion -Werror=return-type
  $<$<C_COMPILER_ID:GNU>:-Wlogical-op;-Wduplicated-cond;-Wjump-misses-init;-Wno-format-truncation>
  $<$<BOOL:${SPROUT_WERROR}>:-Werror>
  -fno-omit-frame-pointer -fno-strict-aliasing)

if(SPROUT_SANITIZE)
  set(sanitize_flags -fsanitize=${SPROUT_SANITIZE} -fno-sanitize-recover=all)
  target_compile_options(sprout_flags INTERFACE ${sanitize_flags})
  target_link_options(sprout_flags INTERFACE ${sanitize_flags})
elseif(CMAKE_BUILD_TYPE MATCHES "Rel")
  target_compile_options(sprout_flags INTERFACE -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2
                         -fstack-protector-strong -fstack-clash-protection)
endif()
if(SPROUT_FUZZ)
  if(NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "SPROUT_FUZZ needs clang (libFuzzer); configure with CC=clang")
  endif()
  target_compile_options(sprout_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
if(SPROUT_COVERAGE)
  target_compile_options(sprout_flags INTERFACE --coverage -fprofile-update=atomic)
  target_link_options(sprout_flags INTERFACE --coverage)
endif()
target_link_options(sprout_flags INTERFACE -Wl,-z,relro,-z,now,-z,noexecstack -Wl,--as-needed)
