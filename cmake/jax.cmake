# How attnext.jax gets its foreign functions: one small library over libattnext, for XLA to call.
# The headers come with jaxlib; without them attnext.jax calls Python back, which is slower.
set(ATTNEXT_JAX
    "AUTO"
    CACHE STRING "Foreign functions for JAX: AUTO, ON, OFF, or pip (jaxlib from PyPI)")
if(DEFINED ENV{ATTNEXT_JAX} AND ATTNEXT_JAX STREQUAL "AUTO")
  set(ATTNEXT_JAX "$ENV{ATTNEXT_JAX}")
endif()
if(NOT ATTNEXT_JAX MATCHES "^(AUTO|ON|OFF|pip)$")
  message(FATAL_ERROR "attnext: ATTNEXT_JAX must be AUTO, ON, OFF or pip, found ${ATTNEXT_JAX}")
endif()
if(ATTNEXT_JAX STREQUAL "OFF")
  return()
endif()

# Looking jaxlib up must not import it.
execute_process(
  COMMAND
    "${Python_EXECUTABLE}" -c
    "from importlib.util import find_spec; print(find_spec('jaxlib').submodule_search_locations[0])"
  OUTPUT_VARIABLE attnext_jaxlib
  OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
find_path(
  ATTNEXT_JAX_INCLUDE xla/ffi/api/ffi.h
  PATHS "${attnext_jaxlib}/include"
  NO_DEFAULT_PATH)
if(NOT ATTNEXT_JAX_INCLUDE)
  if(NOT ATTNEXT_JAX STREQUAL "AUTO")
    message(FATAL_ERROR "attnext: ATTNEXT_JAX=${ATTNEXT_JAX} needs jaxlib, which is not installed")
  endif()
  message(STATUS "attnext: no jaxlib here, no foreign functions for JAX")
  return()
endif()

file(GLOB attnext_jax_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/cpp/jax/*.cpp")
add_library(attnext_jax MODULE ${attnext_jax_sources})
attnext_configure(attnext_jax)
target_include_directories(attnext_jax SYSTEM PRIVATE "${ATTNEXT_JAX_INCLUDE}")
target_link_libraries(attnext_jax PRIVATE attnext)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # A struct of XLA's C interface names its members after their types, which gcc takes for an error.
  target_compile_options(attnext_jax PRIVATE -fpermissive)
endif()
attnext_hide_symbols(attnext_jax)
if(APPLE)
  set_target_properties(attnext_jax PROPERTIES INSTALL_RPATH "@loader_path")
else()
  set_target_properties(attnext_jax PROPERTIES INSTALL_RPATH "$ORIGIN")
endif()
install(TARGETS attnext_jax LIBRARY DESTINATION ${ATTNEXT_INSTALL_LIBDIR} COMPONENT python)
