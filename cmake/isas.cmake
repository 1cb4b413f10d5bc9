# Which instruction sets kernels are compiled for, and with which flags: adding one adds a line.
include(CheckCXXCompilerFlag)

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(attnext_known_isas baseline avx2 avx512 avx512_bf16)
  # Few machines lack AVX2 (from before 2013; small Celerons and Atoms until about 2021): 5 % of
  # forward and 13 % of backward there for a tenth of the time it takes everybody to install.
  set(attnext_flags_baseline -O1)
  set(attnext_flags_avx2 -march=x86-64-v3)
  set(attnext_flags_avx512 -march=x86-64-v4)
  set(attnext_flags_avx512_bf16 -march=x86-64-v4 -mavx512bf16)
  set(attnext_below_avx512_bf16 avx512) # it adds products of pairs to these kernels
  # zig's clang spells the names of these levels with underscores.
  check_cxx_compiler_flag(-march=x86-64-v3 attnext_level_has_hyphens)
  if(NOT attnext_level_has_hyphens)
    foreach(isa IN LISTS attnext_known_isas)
      string(REPLACE "x86-64-v" "x86_64_v" attnext_flags_${isa} "${attnext_flags_${isa}}")
    endforeach()
  endif()
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
  set(attnext_known_isas neon)
else()
  set(attnext_known_isas baseline)
endif()

set(ATTNEXT_ISAS
    "${attnext_known_isas}"
    CACHE STRING "Instruction sets to compile kernels for")
if(NOT ATTNEXT_ISAS)
  message(FATAL_ERROR "attnext: ATTNEXT_ISAS must name one of: ${attnext_known_isas}")
endif()
set(attnext_isas ${ATTNEXT_ISAS})
foreach(isa IN LISTS ATTNEXT_ISAS)
  if(NOT isa IN_LIST attnext_known_isas)
    message(FATAL_ERROR "attnext: ATTNEXT_ISAS must be among ${attnext_known_isas}, found ${isa}")
  endif()
  list(APPEND attnext_isas ${attnext_below_${isa}})
endforeach()
list(REMOVE_DUPLICATES attnext_isas)

# Vectors wider than the ISA's registers are passed around inside one object only, so the ABI note
# (-Wpsabi) says nothing.
set(attnext_kernel_flags -O2 -fno-math-errno -fno-trapping-math -ffp-contract=fast -Wno-psabi)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  list(APPEND attnext_kernel_flags -fno-gcse) # a twelfth of the compile time, and no slower
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # Its own AVX-512 intrinsics start from an undefined register (gcc bug 105593).
  list(APPEND attnext_kernel_flags -Wno-maybe-uninitialized -Wno-uninitialized)
endif()
if(ATTNEXT_SANITIZE) # -O2 would take minutes to find the same
  list(TRANSFORM attnext_kernel_flags REPLACE "^-O2$" "-O1")
endif()

# The kernels of one ISA, and the announcement to isa.cpp that this build has them.
function(attnext_add_kernels isa)
  set(source kernels.cpp)
  if(attnext_below_${isa})
    set(source kernels_of_pairs.cpp)
  endif()
  add_library(attnext_kernels_${isa} OBJECT "${PROJECT_SOURCE_DIR}/cpp/cpu/${source}")
  attnext_configure(attnext_kernels_${isa})
  target_compile_definitions(
    attnext_kernels_${isa} PRIVATE ATTNEXT_ISA=${isa} ATTNEXT_ISA_BELOW=${attnext_below_${isa}})
  target_compile_options(attnext_kernels_${isa} PRIVATE ${attnext_kernel_flags}
                                                        ${attnext_flags_${isa}})
  string(TOUPPER "ATTNEXT_HAS_${isa}" announcement)
  target_compile_definitions(attnext_objects PRIVATE ${announcement})
endfunction()
