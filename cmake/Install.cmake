# SPDX-License-Identifier: Apache-2.0
# cmake --install: headers, both libraries, the program, pkg-config and CMake packages, what operators
# deploy, and the manual page.

include(CMakePackageConfigHelpers)

install(DIRECTORY include/sprout DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
install(TARGETS sprout_shared EXPORT sproutTargets)
install(TARGETS sprout_static sprout)
if(SPROUT_HAVE_RDMA)
  install(TARGETS sprout_rdma LIBRARY DESTINATION ${SPROUT_MODULE_DIR})
endif()
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY deploy/ DESTINATION ${CMAKE_INSTALL_DATADIR}/sprout)

# The manual page comes from the program's own tables.
if(NOT CMAKE_CROSSCOMPILING)
  add_custom_command(OUTPUT sprout.1 COMMAND sprout help --man > sprout.1 VERBATIM)
  add_custom_target(manual ALL DEPENDS sprout.1)
  install(FILES ${PROJECT_BINARY_DIR}/sprout.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
endif()

# pkg-config
file(RELATIVE_PATH PC_TO_PREFIX ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
set(PC_INCLUDEDIR "\${prefix}/${CMAKE_INSTALL_INCLUDEDIR}")
set(PC_LIBDIR "\${prefix}/${CMAKE_INSTALL_LIBDIR}")
set(PC_REQUIRES_PRIVATE "liburing libxxhash jansson ${MSGPACK_MODULE_NAME}")
if(NOT SPROUT_LLHTTP_BUNDLED)
  string(APPEND PC_REQUIRES_PRIVATE " libllhttp")
endif()
configure_file(sprout.pc.in sprout.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/sprout.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

# find_package(sprout)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/sprout)
set_target_properties(sprout_shared PROPERTIES EXPORT_NAME sprout)
install(EXPORT sproutTargets NAMESPACE sprout:: DESTINATION ${package_dir})
configure_package_config_file(cmake/sproutConfig.cmake.in sproutConfig.cmake
                              INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(sproutConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/sproutConfig.cmake ${PROJECT_BINARY_DIR}/sproutConfigVersion.cmake
        DESTINATION ${package_dir})
