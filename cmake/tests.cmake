# Each tests/cpp/*.cpp is one program and one CTest, linked with the library's objects rather than
# the library, so that internal functions can be tested too.
add_library(attnext_internal STATIC ${attnext_objects})
target_link_libraries(attnext_internal PUBLIC Threads::Threads ${CMAKE_DL_LIBS})
set_target_properties(attnext_internal PROPERTIES LINKER_LANGUAGE CXX)

file(GLOB attnext_tests CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/tests/cpp/*.cpp")
foreach(source IN LISTS attnext_tests)
  cmake_path(GET source STEM name)
  add_executable(${name} "${source}")
  attnext_configure(${name})
  target_link_libraries(${name} PRIVATE attnext_internal)
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT 300)
endforeach()

if(CMAKE_SYSTEM_NAME STREQUAL "Linux" AND CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|aarch64|arm64)$")
  add_subdirectory(tests/emulator)
endif()
