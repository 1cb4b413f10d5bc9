# Whether the CUDA plug-in is built, with which nvcc and for which architectures; what the library
# says about it. ATTNEXT_CUDA: ON and pip make a lack an error, AUTO asks for an NVIDIA device too,
# for its architecture alone, so that machines without one keep a quick build (docs/decisions/0007).
if(DEFINED ENV{ATTNEXT_CUDA} AND ATTNEXT_CUDA STREQUAL "AUTO")
  set(ATTNEXT_CUDA "$ENV{ATTNEXT_CUDA}")
endif()
if(DEFINED ENV{ATTNEXT_CUDA_ARCHS} AND NOT ATTNEXT_CUDA_ARCHS)
  set(ATTNEXT_CUDA_ARCHS "$ENV{ATTNEXT_CUDA_ARCHS}")
endif()
if(NOT ATTNEXT_CUDA MATCHES "^(AUTO|ON|OFF|pip)$")
  message(FATAL_ERROR "attnext: ATTNEXT_CUDA must be AUTO, ON, OFF or pip, found ${ATTNEXT_CUDA}")
endif()
set(attnext_has_cuda OFF)

# The nvcc of the PyPI packages cuda-toolkit[nvcc,cudart,cccl]; CMake does not look there itself.
function(attnext_find_pip_nvcc)
  find_package(Python 3.10 REQUIRED COMPONENTS Interpreter)
  execute_process(
    COMMAND
      "${Python_EXECUTABLE}" -c
      "import glob, importlib.util as u; s = u.find_spec('nvidia'); print(*(sorted(f for p in s.submodule_search_locations for f in glob.glob(p + '/cu*/bin/nvcc')) if s else []), sep='\\n')"
    OUTPUT_VARIABLE found
    OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCH "[^\n]+$" nvcc "${found}")
  if(NOT nvcc)
    message(
      FATAL_ERROR
        "attnext: ATTNEXT_CUDA=pip needs nvcc from PyPI, found none beside ${Python_EXECUTABLE}. "
        "pip install \"cuda-toolkit[nvcc,cudart,cccl]>=13.0,<14\" (pip builds with "
        "ATTNEXT_CUDA=pip in the environment do it themselves)")
  endif()
  cmake_path(GET nvcc PARENT_PATH bin)
  cmake_path(GET bin PARENT_PATH root)
  set(CMAKE_CUDA_COMPILER
      "${nvcc}"
      CACHE FILEPATH "nvcc" FORCE)
  # nvcc.profile of 13.0 and 13.1 says lib64, the packages have lib.
  set(CMAKE_CUDA_FLAGS
      "-L${root}/lib ${CMAKE_CUDA_FLAGS}"
      CACHE STRING "Flags of nvcc" FORCE)
endfunction()

# All that nvcc of this version knows of ours, and PTX for what follows. sm_89 runs sm_86's code, and
# sm_103 and 121 that of 100 and 120; cuda/CMakeLists.txt says what is compiled once for several.
function(attnext_default_archs result)
  if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
    set(archs 75-real 80-real 86-real 90-real 100-real 120-real 80-virtual)
  else()
    set(archs 75-real 80-real 86-real 90-real 80-virtual)
  endif()
  set(${result}
      "${archs}"
      PARENT_SCOPE)
endfunction()

# Under WSL the driver is the host's, and lies there.
set(attnext_has_device OFF)
if(EXISTS "/proc/driver/nvidia/version" OR EXISTS "/usr/lib/wsl/lib/libcuda.so.1")
  set(attnext_has_device ON)
endif()
set(attnext_cuda_cure
    "install with ATTNEXT_CUDA=pip (nvcc from PyPI) or ATTNEXT_CUDA=ON (your own) set to have it")
if(ATTNEXT_CUDA STREQUAL "OFF")
  set(attnext_cuda_build "left out of this build: ATTNEXT_CUDA=OFF; ${attnext_cuda_cure}")
elseif(ATTNEXT_CUDA STREQUAL "AUTO" AND NOT attnext_has_device)
  set(attnext_cuda_build
      "left out of this build: there was no NVIDIA device on the machine; ${attnext_cuda_cure}")
else()
  if(ATTNEXT_CUDA STREQUAL "pip" AND NOT CMAKE_CUDA_COMPILER)
    attnext_find_pip_nvcc()
  endif()
  include(CheckLanguage)
  check_language(CUDA)
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES OFF) # each target has its own
  endif()
  if(NOT CMAKE_CUDA_COMPILER AND NOT ATTNEXT_CUDA STREQUAL "AUTO")
    message(
      FATAL_ERROR
        "attnext: ATTNEXT_CUDA=${ATTNEXT_CUDA} needs a working nvcc, found none. Put one into PATH, "
        "name it in CUDACXX, or use ATTNEXT_CUDA=pip; ATTNEXT_CUDA=OFF builds without")
  elseif(NOT CMAKE_CUDA_COMPILER)
    set(attnext_cuda_build
        "left out of this build: no working nvcc was found; ${attnext_cuda_cure}")
  else()
    enable_language(CUDA)
    set(attnext_has_cuda ON)
    if(NOT ATTNEXT_CUDA_ARCHS AND ATTNEXT_CUDA STREQUAL "AUTO")
      set(ATTNEXT_CUDA_ARCHS native)
    elseif(NOT ATTNEXT_CUDA_ARCHS)
      attnext_default_archs(ATTNEXT_CUDA_ARCHS)
    endif()
    list(JOIN ATTNEXT_CUDA_ARCHS " " archs)
    set(attnext_cuda_build "built by nvcc ${CMAKE_CUDA_COMPILER_VERSION} for ${archs}")
  endif()
endif()
message(STATUS "attnext: CUDA back end: ${attnext_cuda_build}")
foreach(plugin attnext_has_cuda ATTNEXT_CUDA_EMULATED)
  set(${plugin}_in_cpp false)
  if(${plugin})
    set(${plugin}_in_cpp true)
  endif()
endforeach()
file(
  CONFIGURE
  OUTPUT "${PROJECT_BINARY_DIR}/generated/cuda_build.h"
  CONTENT
    "// What this build has of CUDA, for backends() and errors: made by cmake/cuda.cmake.\nconstexpr const char* kCudaBuild = \"${attnext_cuda_build}\";\nconstexpr bool kHasCuda = ${attnext_has_cuda_in_cpp}, kHasEmulated = ${ATTNEXT_CUDA_EMULATED_in_cpp};\n"
  @ONLY)
