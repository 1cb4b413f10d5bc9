// What a paired term is: bfloat16 numbers in pairs, as AVX512_BF16 multiplies them. Two products
// join a float32 sum in one instruction, at twice the rate of float32.
#pragma once

#include <type_traits>

#include "attention/score.h"
#include "cpu/simd/leaf.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

// Two bfloat16, the first in the low half.
using Pair = int32_t;

#if defined(__AVX512BF16__)
constexpr bool kHasPairs = true;

// Dot products whose operands are pairs. The sums are those of float32 products of bfloat16.
struct PairedDotTerm {
  static constexpr bool kHasWeight = false, kIsBilinear = true;
  static constexpr int kSumBlock = DotTerm::kSumBlock;
  template <class Math>
  static inline __attribute__((always_inline)) Vec<float> add(Vec<float> sum, Vec<Pair> a,
                                                              Vec<Pair> b, Vec<float>) {
    return reinterpret_cast<Vec<float>>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(sum),
                                                         reinterpret_cast<__m512bh>(a),
                                                         reinterpret_cast<__m512bh>(b)));
  }
};

ATTNEXT_HD HalfVec<float> add_product(HalfVec<float> sum, HalfVec<Pair> a, HalfVec<Pair> b) {
  return reinterpret_cast<HalfVec<float>>(_mm256_dpbf16_ps(
      reinterpret_cast<__m256>(sum), reinterpret_cast<__m256bh>(a), reinterpret_cast<__m256bh>(b)));
}

// Lane by lane (low, high), rounded to nearest.
ATTNEXT_HD Vec<Pair> pair_up(Vec<float> low, Vec<float> high) {
  alignas(64) static constexpr int16_t kInterleave[32] = {
      0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
      8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512bh both =
      _mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(high), reinterpret_cast<__m512>(low));
  return reinterpret_cast<Vec<Pair>>(_mm512_permutexvar_epi16(
      *reinterpret_cast<const __m512i*>(kInterleave), reinterpret_cast<__m512i>(both)));
}

// sum + low + high, lane by lane.
ATTNEXT_HD Vec<float> add_pairs(Vec<float> sum, Vec<Pair> pairs) {
  constexpr Pair kOnes = 0x3f803f80;
  return PairedDotTerm::add<void>(sum, pairs, splat<Pair>(kOnes), Vec<float>{});
}
#else
constexpr bool kHasPairs = false;
using PairedDotTerm = DotTerm;  // never chosen
#endif

template <int kFirst, class V, int... kIndex>
ATTNEXT_HD V interleave_from(V a, V b, std::integer_sequence<int, kIndex...>) {
  return __builtin_shufflevector(
      a, b, (kFirst + kIndex / 2 + kIndex % 2 * static_cast<int>(sizeof...(kIndex)))...);
}

// out[i] = (first[i], second[i]) of 2 kLanes<Pair> elements each.
ATTNEXT_HD void interleave(const char* first, const char* second, Pair* out) {
  typedef uint16_t Elements __attribute__((vector_size(kVectorBytes)));
  constexpr int kCount = 2 * kLanes<Pair>;
  using Lanes = std::make_integer_sequence<int, kCount>;
  Elements a, b;
  std::memcpy(&a, first, sizeof(a));
  std::memcpy(&b, second, sizeof(b));
  store<Pair>(out, reinterpret_cast<Vec<Pair>>(interleave_from<0>(a, b, Lanes{})));
  store<Pair>(out + kLanes<Pair>,
              reinterpret_cast<Vec<Pair>>(interleave_from<kCount / 2>(a, b, Lanes{})));
}

template <class Term>
constexpr bool kIsPaired = false;
#if defined(__AVX512BF16__)
template <>
inline constexpr bool kIsPaired<PairedDotTerm> = true;
#endif

template <bool kPaired, class A>
struct OperandOf {
  using Type = A;
};
template <class A>
struct OperandOf<true, A> {
  using Type = Pair;
};
// What the products of a term read.
template <class Term, class A>
using Operand = typename OperandOf<kIsPaired<Term>, A>::Type;

// Buffers of numbers hold operands of paired terms as well.
template <class Term, class A>
ATTNEXT_HD Operand<Term, A>* operands(A* buffer) {
  return reinterpret_cast<Operand<Term, A>*>(buffer);
}

// The products with values are dot products whatever the score is.
template <class Term>
using PlainDot = std::conditional_t<kIsPaired<Term>, Term, DotTerm>;

// How many numbers an operand holds.
template <class Term>
constexpr int kPack = kIsPaired<Term> ? 2 : 1;

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
