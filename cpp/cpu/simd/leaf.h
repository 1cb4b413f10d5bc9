// The leaf operations that need an instruction's name: maximum, square root, rounding, powers of
// two, 16-bit types. One header per instruction set supplies them all.
#pragma once

#if defined(__AVX512F__)
#include "cpu/simd/avx512.h"
#elif defined(__AVX2__)
#include "cpu/simd/avx2.h"
#else
#include "cpu/simd/generic.h"
#endif
