// What lets one line of attention maths compile for a CPU lane, a SIMD vector and a CUDA thread.
#pragma once

#include <cstdint>

// Internal linkage and always inlined: these headers are compiled into objects of several
// instruction sets, and a weak symbol built for AVX-512 could be the one the linker keeps for an
// old CPU.
#if defined(__CUDACC__)
#define ATTNEXT_HD static __host__ __device__ __forceinline__
#else
#define ATTNEXT_HD static inline __attribute__((always_inline))
#endif

namespace attnext {

constexpr double kLog2E = 1.4426950408889634074;
constexpr double kLn2 = 0.69314718055994530942;

ATTNEXT_HD int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }
ATTNEXT_HD int64_t max_of(int64_t a, int64_t b) { return a > b ? a : b; }
ATTNEXT_HD int64_t clamp_to(int64_t x, int64_t low, int64_t high) {
  return max_of(low, min_of(x, high));
}
ATTNEXT_HD int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
ATTNEXT_HD int64_t round_up(int64_t a, int64_t b) { return divide_up(a, b) * b; }

}  // namespace attnext
