// Leaf operations in plain vector extensions: any machine (x86-64 baseline, NEON).
#pragma once

#include <cmath>
#if defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "cpu/simd/bits.h"
#include "cpu/simd/without_avx512.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

// The second operand where either is NaN.
template <class A>
ATTNEXT_HD Vec<A> maximum(Vec<A> a, Vec<A> b) {
  return select<A>(a > b, a, b);
}

// x y + z, rounded alike wherever it stands: what compilers contract depends on what is around it.
template <class A>
ATTNEXT_HD Vec<A> multiply_add(Vec<A> x, Vec<A> y, Vec<A> z) {
#if defined(__aarch64__)
  if constexpr (sizeof(A) == 4)
    return reinterpret_cast<Vec<A>>(vfmaq_f32(reinterpret_cast<float32x4_t>(z),
                                              reinterpret_cast<float32x4_t>(x),
                                              reinterpret_cast<float32x4_t>(y)));
  else
    return reinterpret_cast<Vec<A>>(vfmaq_f64(reinterpret_cast<float64x2_t>(z),
                                              reinterpret_cast<float64x2_t>(x),
                                              reinterpret_cast<float64x2_t>(y)));
#else
  return x * y + z;  // the baseline has nothing to contract it to
#endif
}

template <class A>
ATTNEXT_HD Vec<A> square_root(Vec<A> x) {
  for (int i = 0; i < kLanes<A>; ++i)
    x[i] = sizeof(A) == 4 ? __builtin_sqrtf(x[i]) : __builtin_sqrt(x[i]);
  return x;
}

template <class A>
ATTNEXT_HD bool any(IntVec<A> mask) {
  typename VectorOf<A>::IntegerScalar bits = 0;
  for (int i = 0; i < kLanes<A>; ++i) bits |= mask[i];
  return bits != 0;
}

// Adding 1.5 2^(mantissa bits) leaves no room for a fraction. |y| < 2^22 (2^51): exponents are far
// below.
template <class A>
ATTNEXT_HD Power<A> split_power(Vec<A> y) {
  const Vec<A> magic = splat<A>(sizeof(A) == 4 ? A(12582912.0) : A(6755399441055744.0));
  const Vec<A> finite = maximum<A>(splat<A>(kLeastPower<A>), y),
               whole = (finite - A(0.5) + magic) - magic;
  return {whole, finite - whole};
}
template <class A>
ATTNEXT_HD Vec<A> scale_by_power(Vec<A> p, Vec<A> n) {
  return scale_exponent<A>(p, n);
}

ATTNEXT_HD Vec<float> load_half(const uint16_t* p) {
  Vec<float> x;
  for (int i = 0; i < kLanes<float>; ++i) x[i] = half_value(p[i]);
  return x;
}
ATTNEXT_HD void store_half(uint16_t* p, Vec<float> x) {
  for (int i = 0; i < kLanes<float>; ++i) p[i] = half_bits(x[i]);
}
ATTNEXT_HD Vec<float> load_bfloat(const uint16_t* p) {
  Vec<float> x;
  for (int i = 0; i < kLanes<float>; ++i) x[i] = bfloat_value(p[i]);
  return x;
}
ATTNEXT_HD void store_bfloat(uint16_t* p, Vec<float> x) {
  for (int i = 0; i < kLanes<float>; ++i) p[i] = bfloat_bits(x[i]);
}

// The 64-bit products of the low halves of lanes.
ATTNEXT_HD DoubleWords multiply_low(DoubleWords a, DoubleWords b) {
  constexpr uint64_t kLow = 0xffffffff;
  return (a & kLow) * (b & kLow);
}

constexpr bool kHasLookup = false;

// Bit n: byte n of 32 is not 0.
ATTNEXT_HD uint32_t nonzero_bytes(const char* p) {
  uint32_t bits = 0;
  for (int i = 0; i < 32; ++i) bits |= static_cast<uint32_t>(p[i] != 0) << i;
  return bits;
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
