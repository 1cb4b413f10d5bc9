// What a wrapper's declaration means to nvcc: an inlined device function, without the call's place.
#pragma once

#ifndef __CUDACC__
#error \
    "cuda/ptx needs nvcc. For the emulator put tests/emulator first in the include path; a file that lies directly in cuda/ writes <ptx/...>, since quotes look beside it first."
#endif

#define PTX_FN __device__ __forceinline__
#define PTX_SITE
#define PTX_AND_SITE
