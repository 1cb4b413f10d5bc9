# What every object of the library is compiled and linked with, and what the build options ask for.

if(ATTNEXT_SANITIZE)
  add_compile_options(-fsanitize=${ATTNEXT_SANITIZE} -fno-sanitize-recover=all
                      -fno-omit-frame-pointer -g)
  add_link_options(-fsanitize=${ATTNEXT_SANITIZE})
endif()

# Wheels keep everything below attnext/ and hold no symbolic links, hence no versioned library name.
if(SKBUILD)
  set(ATTNEXT_INSTALL_LIBDIR lib)
  set(ATTNEXT_INSTALL_INCLUDEDIR include)
else()
  set(ATTNEXT_INSTALL_LIBDIR ${CMAKE_INSTALL_LIBDIR})
  set(ATTNEXT_INSTALL_INCLUDEDIR ${CMAKE_INSTALL_INCLUDEDIR})
endif()

function(attnext_configure target)
  target_include_directories(${target} PRIVATE "${PROJECT_SOURCE_DIR}/cpp"
                                               "${PROJECT_SOURCE_DIR}/cpp/include")
  target_compile_features(${target} PRIVATE cxx_std_20)
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic>")
  # Not -O3: what is to be unrolled says so, and the rest compiles in an eighth less time.
  target_compile_options(${target}
                         PRIVATE "$<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CONFIG:Release>>:-O2>")
  set_target_properties(
    ${target}
    PROPERTIES CXX_EXTENSIONS OFF
               CXX_SCAN_FOR_MODULES OFF
               CXX_VISIBILITY_PRESET hidden
               VISIBILITY_INLINES_HIDDEN ON
               POSITION_INDEPENDENT_CODE ON)
endfunction()

# Installing compiles all files of a target as one: headers are read once, a third of the time of
# compiling them apart. Elsewhere each file stands alone, so that none leans on another's includes.
function(attnext_compile_at_once target)
  if(SKBUILD)
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 0)
  endif()
endfunction()

# Hidden visibility does not reach instances of std:: templates, which libstdc++ declares visible;
# exported, they would replace or be replaced by those of the program that loads us.
function(attnext_hide_symbols target)
  if(APPLE)
    target_link_options(${target} PRIVATE "-Wl,-exported_symbol,_attnext_*")
  else()
    set(map "${PROJECT_SOURCE_DIR}/cmake/exports.map")
    target_link_options(${target} PRIVATE "-Wl,--version-script=${map}")
    set_property(
      TARGET ${target}
      APPEND
      PROPERTY LINK_DEPENDS "${map}")
  endif()
endfunction()
