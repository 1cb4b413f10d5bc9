# How attnext._core, the Python extension over libattnext, is built: only for a wheel.
find_package(Python 3.10 REQUIRED COMPONENTS Interpreter Development.Module)
set(PYBIND11_FINDPYTHON ON)
find_package(pybind11 3 CONFIG REQUIRED)

# dlpack.h comes with apache-tvm-ffi, a build requirement; looking it up must not import the
# package.
execute_process(
  COMMAND
    "${Python_EXECUTABLE}" -c
    "from importlib.util import find_spec; print(find_spec('tvm_ffi').submodule_search_locations[0])"
  OUTPUT_VARIABLE attnext_tvm_ffi
  OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
find_path(
  ATTNEXT_DLPACK_INCLUDE dlpack/dlpack.h
  PATHS "${attnext_tvm_ffi}/include" REQUIRED
  NO_DEFAULT_PATH)

file(GLOB attnext_bindings CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/cpp/bindings/*.cpp")
# NO_EXTRAS: one translation unit leaves optimisation at link time nothing to do.
pybind11_add_module(_core MODULE NO_EXTRAS ${attnext_bindings})
attnext_configure(_core)
attnext_compile_at_once(_core)
target_include_directories(_core SYSTEM PRIVATE "${ATTNEXT_DLPACK_INCLUDE}")
target_link_libraries(_core PRIVATE attnext)
if(APPLE)
  set_target_properties(_core PROPERTIES INSTALL_RPATH "@loader_path/lib")
else()
  set_target_properties(_core PROPERTIES INSTALL_RPATH "$ORIGIN/lib")
endif()
install(TARGETS _core LIBRARY DESTINATION . COMPONENT python)
