// AVX2 + FMA + F16C leaf operations: maximum, square root, powers of two, 16-bit conversions.
#pragma once

#include <immintrin.h>

#include "cpu/simd/bits.h"
#include "cpu/simd/without_avx512.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

// The second operand where either is NaN.
template <class A>
ATTNEXT_HD Vec<A> maximum(Vec<A> a, Vec<A> b) {
  if constexpr (sizeof(A) == 4)
    return reinterpret_cast<Vec<A>>(
        _mm256_max_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b)));
  else
    return reinterpret_cast<Vec<A>>(
        _mm256_max_pd(reinterpret_cast<__m256d>(a), reinterpret_cast<__m256d>(b)));
}

// x y + z, rounded once wherever it stands: what compilers contract depends on what is around it.
template <class A>
ATTNEXT_HD Vec<A> multiply_add(Vec<A> x, Vec<A> y, Vec<A> z) {
  if constexpr (sizeof(A) == 4)
    return reinterpret_cast<Vec<A>>(_mm256_fmadd_ps(
        reinterpret_cast<__m256>(x), reinterpret_cast<__m256>(y), reinterpret_cast<__m256>(z)));
  else
    return reinterpret_cast<Vec<A>>(_mm256_fmadd_pd(
        reinterpret_cast<__m256d>(x), reinterpret_cast<__m256d>(y), reinterpret_cast<__m256d>(z)));
}

template <class A>
ATTNEXT_HD Vec<A> square_root(Vec<A> x) {
  if constexpr (sizeof(A) == 4)
    return reinterpret_cast<Vec<A>>(_mm256_sqrt_ps(reinterpret_cast<__m256>(x)));
  else
    return reinterpret_cast<Vec<A>>(_mm256_sqrt_pd(reinterpret_cast<__m256d>(x)));
}

template <class A>
ATTNEXT_HD bool any(IntVec<A> mask) {
  return _mm256_testz_si256(reinterpret_cast<__m256i>(mask), reinterpret_cast<__m256i>(mask)) == 0;
}

template <class A>
ATTNEXT_HD Power<A> split_power(Vec<A> y) {
  constexpr int kDownQuiet = 9;
  const Vec<A> finite = maximum<A>(splat<A>(kLeastPower<A>), y);
  Vec<A> whole;
  if constexpr (sizeof(A) == 4)
    whole = reinterpret_cast<Vec<A>>(_mm256_round_ps(reinterpret_cast<__m256>(finite), kDownQuiet));
  else
    whole =
        reinterpret_cast<Vec<A>>(_mm256_round_pd(reinterpret_cast<__m256d>(finite), kDownQuiet));
  return {whole, finite - whole};
}
template <class A>
ATTNEXT_HD Vec<A> scale_by_power(Vec<A> p, Vec<A> n) {
  return scale_exponent<A>(p, n);
}

ATTNEXT_HD Vec<float> load_half(const uint16_t* p) {
  return reinterpret_cast<Vec<float>>(
      _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
ATTNEXT_HD void store_half(uint16_t* p, Vec<float> x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(reinterpret_cast<__m256>(x), 0));
}
ATTNEXT_HD Vec<float> load_bfloat(const uint16_t* p) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return reinterpret_cast<Vec<float>>(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
ATTNEXT_HD void store_bfloat(uint16_t* p, Vec<float> x) {
  for (int i = 0; i < kLanes<float>; ++i) p[i] = bfloat_bits(x[i]);
}

// The 64-bit products of the low halves of lanes.
ATTNEXT_HD DoubleWords multiply_low(DoubleWords a, DoubleWords b) {
  return reinterpret_cast<DoubleWords>(
      _mm256_mul_epu32(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
}

constexpr bool kHasLookup = false;

// Bit n: byte n of 32 is not 0.
ATTNEXT_HD uint32_t nonzero_bytes(const char* p) {
  const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return ~static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(bytes, __m256i{})));
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
