// The same leaf operations in integer arithmetic on the bits of a number, for where no instruction
// does it, and for single elements everywhere.
#pragma once

#include "cpu/simd/vec.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

// y taken apart: 2^y = 2^rest 2^whole, rest in [0, 1].
template <class A>
struct Power {
  Vec<A> whole;  // for scale_by_power
  Vec<A> rest;
};

// -infinity - floor(-infinity) would be NaN. (maximum() keeps a NaN in its second operand.)
template <class A>
constexpr A kLeastPower = sizeof(A) == 4 ? A(-300) : A(-3000);

// p 2^n through the exponent field, for whole n. Below the normal range 0, above it infinity; a NaN
// in n stays a NaN.
template <class A>
ATTNEXT_HD Vec<A> scale_exponent(Vec<A> p, Vec<A> n) {
  constexpr A kLow = sizeof(A) == 4 ? -126 : -1022, kHigh = sizeof(A) == 4 ? 127 : 1023;
  constexpr int kMantissa = sizeof(A) == 4 ? 23 : 52;
  const Vec<A> clamped = select<A>(n < splat<A>(kLow), splat<A>(kLow),
                                   select<A>(n > splat<A>(kHigh), splat<A>(kHigh), n));
  // The low bits of clamped + 1.5 2^mantissa are the integer: no conversion instruction for 64-bit
  // lanes is needed.
  const Vec<A> magic = splat<A>(sizeof(A) == 4 ? A(12582912.0) : A(6755399441055744.0));
  const IntVec<A> shifted = reinterpret_cast<IntVec<A>>(clamped + magic) << kMantissa;
  const Vec<A> scaled = reinterpret_cast<Vec<A>>(reinterpret_cast<IntVec<A>>(p) + shifted);
  const Vec<A> in_range =
      select<A>(n < splat<A>(kLow), Vec<A>{},
                select<A>(n > splat<A>(kHigh), splat<A>(A(__builtin_inf())), scaled));
  return select<A>(n == n, in_range, n);
}

// Unsigned lanes of 64 bits.
typedef uint64_t DoubleWords __attribute__((vector_size(kVectorBytes), may_alias));

ATTNEXT_HD uint32_t bits_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits;
}
ATTNEXT_HD float float_of(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}

ATTNEXT_HD float bfloat_value(uint16_t bits) { return float_of(static_cast<uint32_t>(bits) << 16); }

// Round to nearest, ties to even; a NaN must not be carried into an infinity.
ATTNEXT_HD uint16_t bfloat_bits(float x) {
  const uint32_t bits = bits_of(x);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return static_cast<uint16_t>(x == x ? rounded : 0x7fc0);
}

// binary16 by the exponent trick: multiplying by 2^112 moves the exponent bias and normalises
// subnormals.
ATTNEXT_HD float half_value(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t magnitude = static_cast<uint32_t>(half & 0x7fff) << 13;
  const float value = float_of(magnitude) * 0x1p112f;
  const uint32_t special = magnitude | 0x7f800000;  // infinity and NaN keep their mantissa
  return float_of(sign | ((half & 0x7c00) == 0x7c00 ? special : bits_of(value)));
}

// Adding a power of two chosen by the exponent makes the float adder round to the wanted bit, ties
// to even.
ATTNEXT_HD uint16_t half_bits(float x) {
  const uint32_t bits = bits_of(x), sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00);
  if (magnitude >= 0x477ff000)
    return static_cast<uint16_t>(sign | 0x7c00);  // rounds to 65536 or more
  if (magnitude < 0x38800000) {                   // subnormal: the last bit is worth 2^-24
    const float aligned = float_of(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (bits_of(aligned) - bits_of(0.5f)));
  }
  const uint32_t rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000) >> 13));
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
