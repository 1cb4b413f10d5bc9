// What a wrapper's declaration means to the emulator: an inline function that knows its caller's
// place.
#pragma once

#ifdef __CUDACC__
#error "tests/emulator must not be in nvcc's include path: it would replace the real wrappers."
#endif

#include <source_location>

#define PTX_FN inline
#define PTX_SITE const std::source_location& site = std::source_location::current()
#define PTX_AND_SITE , PTX_SITE

// Attributes of CUDA that kernels write themselves.
#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __launch_bounds__(...)
#define __forceinline__ inline
#ifndef __restrict__
#define __restrict__ __restrict
#endif
