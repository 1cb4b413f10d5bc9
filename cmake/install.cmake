# What is installed where: into attnext/ of a wheel, or below the usual prefix by `cmake --install`.
include(CMakePackageConfigHelpers)

if(NOT SKBUILD)
  set_target_properties(attnext PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION
                                                                      ${PROJECT_VERSION_MAJOR})
endif()

set(attnext_package_dir "${ATTNEXT_INSTALL_LIBDIR}/cmake/attnext")
install(
  TARGETS attnext
  EXPORT attnextTargets
  LIBRARY DESTINATION ${ATTNEXT_INSTALL_LIBDIR}
          COMPONENT python
          NAMELINK_COMPONENT devel)
install(
  DIRECTORY "${PROJECT_SOURCE_DIR}/cpp/include/attnext"
  DESTINATION ${ATTNEXT_INSTALL_INCLUDEDIR}
  COMPONENT devel)
install(
  EXPORT attnextTargets
  NAMESPACE attnext::
  DESTINATION ${attnext_package_dir}
  COMPONENT devel)
configure_package_config_file(
  "${PROJECT_SOURCE_DIR}/cmake/attnextConfig.cmake.in" "${PROJECT_BINARY_DIR}/attnextConfig.cmake"
  INSTALL_DESTINATION ${attnext_package_dir})
write_basic_package_version_file("${PROJECT_BINARY_DIR}/attnextConfigVersion.cmake"
                                 COMPATIBILITY SameMajorVersion)
install(
  FILES "${PROJECT_BINARY_DIR}/attnextConfig.cmake"
        "${PROJECT_BINARY_DIR}/attnextConfigVersion.cmake"
  DESTINATION ${attnext_package_dir}
  COMPONENT devel)
