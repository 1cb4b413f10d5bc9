// AVX-512 leaf operations: maximum, square root, powers of two, 16-bit conversions.
#pragma once

#include <immintrin.h>

#include "cpu/simd/bits.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

// The second operand where either is NaN.
template <class A>
ATTNEXT_HD Vec<A> maximum(Vec<A> a, Vec<A> b) {
  if constexpr (sizeof(A) == 4)
    return reinterpret_cast<Vec<A>>(
        _mm512_max_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
  else
    return reinterpret_cast<Vec<A>>(
        _mm512_max_pd(reinterpret_cast<__m512d>(a), reinterpret_cast<__m512d>(b)));
}

// x y + z, rounded once wherever it stands: what compilers contract depends on what is around it.
template <class A>
ATTNEXT_HD Vec<A> multiply_add(Vec<A> x, Vec<A> y, Vec<A> z) {
  if constexpr (sizeof(A) == 4)
    return reinterpret_cast<Vec<A>>(_mm512_fmadd_ps(
        reinterpret_cast<__m512>(x), reinterpret_cast<__m512>(y), reinterpret_cast<__m512>(z)));
  else
    return reinterpret_cast<Vec<A>>(_mm512_fmadd_pd(
        reinterpret_cast<__m512d>(x), reinterpret_cast<__m512d>(y), reinterpret_cast<__m512d>(z)));
}

template <class A>
ATTNEXT_HD Vec<A> square_root(Vec<A> x) {
  if constexpr (sizeof(A) == 4)
    return reinterpret_cast<Vec<A>>(_mm512_sqrt_ps(reinterpret_cast<__m512>(x)));
  else
    return reinterpret_cast<Vec<A>>(_mm512_sqrt_pd(reinterpret_cast<__m512d>(x)));
}

template <class A>
ATTNEXT_HD bool any(IntVec<A> mask) {
  return _mm512_test_epi32_mask(reinterpret_cast<__m512i>(mask), reinterpret_cast<__m512i>(mask)) !=
         0;
}

// One instruction takes the fraction, and the one that scales ignores it. On Zen 4 what lies beside
// the multiply-adds of an exponential is not free: its adders limit it.
template <class A>
ATTNEXT_HD Power<A> split_power(Vec<A> y) {
  constexpr int kDownQuiet = 9;
  if constexpr (sizeof(A) == 4)
    return {y, reinterpret_cast<Vec<A>>(_mm512_reduce_ps(reinterpret_cast<__m512>(y), kDownQuiet))};
  else
    return {y,
            reinterpret_cast<Vec<A>>(_mm512_reduce_pd(reinterpret_cast<__m512d>(y), kDownQuiet))};
}
// p 2^floor(n): 0 below the range, infinity above it.
template <class A>
ATTNEXT_HD Vec<A> scale_by_power(Vec<A> p, Vec<A> n) {
  if constexpr (sizeof(A) == 4)
    return reinterpret_cast<Vec<A>>(
        _mm512_scalef_ps(reinterpret_cast<__m512>(p), reinterpret_cast<__m512>(n)));
  else
    return reinterpret_cast<Vec<A>>(
        _mm512_scalef_pd(reinterpret_cast<__m512d>(p), reinterpret_cast<__m512d>(n)));
}

ATTNEXT_HD Vec<float> load_half(const uint16_t* p) {
  return reinterpret_cast<Vec<float>>(
      _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
}
ATTNEXT_HD void store_half(uint16_t* p, Vec<float> x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtps_ph(reinterpret_cast<__m512>(x), 0));
}
ATTNEXT_HD Vec<float> load_bfloat(const uint16_t* p) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return reinterpret_cast<Vec<float>>(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
ATTNEXT_HD void store_bfloat(uint16_t* p, Vec<float> x) {
#if defined(__AVX512BF16__)
  const __m256bh rounded = _mm512_cvtneps_pbh(reinterpret_cast<__m512>(x));
  std::memcpy(p, &rounded, sizeof(rounded));
#else
  const __m512i bits = reinterpret_cast<__m512i>(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  // A NaN must not be carried into an infinity by the rounding.
  const __mmask16 is_nan =
      _mm512_cmp_ps_mask(reinterpret_cast<__m512>(x), reinterpret_cast<__m512>(x), _CMP_UNORD_Q);
  const __m512i result = _mm512_mask_blend_epi32(is_nan, rounded, _mm512_set1_epi32(0x7fc00000));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtepi32_epi16(_mm512_srli_epi32(result, 16)));
#endif
}

// The 64-bit products of the low halves of lanes.
ATTNEXT_HD DoubleWords multiply_low(DoubleWords a, DoubleWords b) {
  return reinterpret_cast<DoubleWords>(
      _mm512_mul_epu32(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
}

// table[low four bits of index], lane by lane: 16 numbers are one register.
constexpr bool kHasLookup = true;
ATTNEXT_HD Vec<float> lookup(const float (&table)[16], IntVec<float> index) {
  return reinterpret_cast<Vec<float>>(
      _mm512_permutexvar_ps(reinterpret_cast<__m512i>(index), _mm512_load_ps(table)));
}

// Bit n: byte n of 32 is not 0.
ATTNEXT_HD uint32_t nonzero_bytes(const char* p) {
  const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm256_test_epi8_mask(bytes, bytes);
}

// Whole cache lines past the caches, to a multiple of their size; visible to other threads only
// after finish_streaming.
constexpr bool kStreamsLines = true;
template <class A>
ATTNEXT_HD void stream(A* p, Vec<A> x) {
  _mm512_stream_ps(reinterpret_cast<float*>(p), reinterpret_cast<__m512>(x));
}
ATTNEXT_HD void finish_streaming() { _mm_sfence(); }

// x - *p and sum + x * *p, the number from memory in every lane: by an operand of the instruction,
// which compilers would take out to share it among several.
template <class A>
ATTNEXT_HD Vec<A> subtract_broadcast(Vec<A> x, const A* p) {
  Vec<A> difference;
  if constexpr (sizeof(A) == 4)
    asm("vsubps %2%{1to16%}, %1, %0" : "=v"(difference) : "v"(x), "m"(*p));
  else
    asm("vsubpd %2%{1to8%}, %1, %0" : "=v"(difference) : "v"(x), "m"(*p));
  return difference;
}
template <class A>
ATTNEXT_HD Vec<A> add_broadcast_product(Vec<A> sum, Vec<A> x, const A* p) {
  if constexpr (sizeof(A) == 4)
    asm("vfmadd231ps %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(x), "m"(*p));
  else
    asm("vfmadd231pd %2%{1to8%}, %1, %0" : "+v"(sum) : "v"(x), "m"(*p));
  return sum;
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
