# SPDX-License-Identifier: Apache-2.0
# libsprout.so and libsprout.a from the objects; a bundled llhttp is folded into both.

add_library(sprout_shared SHARED $<TARGET_OBJECTS:sprout_objects>)
set_target_properties(sprout_shared PROPERTIES OUTPUT_NAME sprout SOVERSION 0
                      VERSION ${PROJECT_VERSION} LINKER_LANGUAGE C)
target_link_libraries(sprout_shared PRIVATE sprout_dependencies sprout_flags)
target_link_options(sprout_shared PRIVATE -Wl,--exclude-libs,ALL)
if(NOT SPROUT_SANITIZE) # clang leaves the sanitizer's symbols to the program
  target_link_options(sprout_shared PRIVATE -Wl,-z,defs)
endif()

set(archive_objects $<TARGET_OBJECTS:sprout_objects>)
if(SPROUT_LLHTTP_BUNDLED)
  list(APPEND archive_objects $<TARGET_OBJECTS:llhttp>)
endif()

# An archive has no notion of hidden symbols across its members: plan_init of ours would clash with
# plan_init of the user's. So the objects are linked into one and everything hidden is made local.
# Instrumented objects do not survive that (sanitizers key their tables to sections): plain archive.
if(CMAKE_OBJCOPY AND CMAKE_LINKER AND NOT SPROUT_SANITIZE AND NOT SPROUT_COVERAGE
   AND NOT CMAKE_INTERPROCEDURAL_OPTIMIZATION)
  set(merged ${PROJECT_BINARY_DIR}/libsprout.o)
  add_custom_command(
    OUTPUT ${merged}
    COMMAND ${CMAKE_LINKER} -r -o ${merged} ${archive_objects}
    COMMAND ${CMAKE_OBJCOPY} --localize-hidden ${merged}
    DEPENDS ${archive_objects}
    COMMENT "Merging the objects of libsprout.a"
    COMMAND_EXPAND_LISTS VERBATIM)
  set(archive_objects ${merged})
endif()

add_library(sprout_static STATIC ${archive_objects})
set_target_properties(sprout_static PROPERTIES OUTPUT_NAME sprout LINKER_LANGUAGE C)
target_link_libraries(sprout_static PUBLIC sprout_dependencies)

# The public headers are all that a user of either library sees.
foreach(library IN ITEMS sprout_shared sprout_static)
  target_include_directories(${library} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
                             $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
endforeach()
