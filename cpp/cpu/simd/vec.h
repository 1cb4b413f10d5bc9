// What a SIMD lane set is: vectors of one register's width over the compiler's vector extension,
// and what needs no instruction's name to work on them.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#include "attention/portable.h"

#if defined(__clang__)
#define ATTNEXT_UNROLL _Pragma("clang loop unroll(full)")
#define ATTNEXT_UNROLL_TWICE _Pragma("clang loop unroll_count(2)")
#else
#define ATTNEXT_UNROLL _Pragma("GCC unroll 64")
#define ATTNEXT_UNROLL_TWICE _Pragma("GCC unroll 2")
#endif

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

// A compile-time integer as a value, to hand tile sizes to generic lambdas.
template <int N>
struct Int {
  static constexpr int value = N;
};

template <class A>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float Type __attribute__((vector_size(kVectorBytes), may_alias));
  typedef float Unaligned __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
  typedef int32_t Integer __attribute__((vector_size(kVectorBytes), may_alias));
  typedef int32_t IntegerScalar;
};
template <>
struct VectorOf<double> {
  typedef double Type __attribute__((vector_size(kVectorBytes), may_alias));
  typedef double Unaligned __attribute__((vector_size(kVectorBytes), aligned(8), may_alias));
  typedef int64_t Integer __attribute__((vector_size(kVectorBytes), may_alias));
  typedef int64_t IntegerScalar;
};

template <>
struct VectorOf<int32_t> {
  typedef int32_t Type __attribute__((vector_size(kVectorBytes), may_alias));
  typedef int32_t Unaligned __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
};

template <class A>
using Vec = typename VectorOf<A>::Type;
template <class A>
using IntVec = typename VectorOf<A>::Integer;
// Half as many lanes, at any address.
template <class A>
struct HalfOf {
  typedef A Type __attribute__((vector_size(kVectorBytes / 2), aligned(sizeof(A)), may_alias));
};
template <class A>
using HalfVec = typename HalfOf<A>::Type;

template <class A>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(A));

template <class A>
ATTNEXT_HD Vec<A> load(const A* p) {
  return *reinterpret_cast<const Vec<A>*>(p);
}
template <class A>
ATTNEXT_HD Vec<A> load_unaligned(const A* p) {
  return *reinterpret_cast<const typename VectorOf<A>::Unaligned*>(p);
}
template <class A>
ATTNEXT_HD void store(A* p, Vec<A> x) {
  *reinterpret_cast<Vec<A>*>(p) = x;
}
template <class A>
ATTNEXT_HD void store_unaligned(A* p, Vec<A> x) {
  *reinterpret_cast<typename VectorOf<A>::Unaligned*>(p) = x;
}

template <class A>
ATTNEXT_HD void add_to(A* p, Vec<A> x) {
  store<A>(p, load<A>(p) + x);
}

// Subtracting zero makes compilers broadcast; filling elements one by one compiles to masked
// inserts.
template <class A>
ATTNEXT_HD Vec<A> splat(A x) {
  return x - Vec<A>{};
}

// `mask` lanes are all ones or all zeros, as comparisons of vectors give them.
template <class A>
ATTNEXT_HD Vec<A> select(IntVec<A> mask, Vec<A> yes, Vec<A> no) {
  return mask ? yes : no;
}

template <class A>
ATTNEXT_HD Vec<A> absolute(Vec<A> x) {
  return select<A>(x < Vec<A>{}, -x, x);
}

template <int kStep, class V, int... kIndex>
ATTNEXT_HD V rotate(V x, std::integer_sequence<int, kIndex...>) {
  return __builtin_shufflevector(x, x, ((kIndex + kStep) % static_cast<int>(sizeof...(kIndex)))...);
}

template <int kStep, class V, int... kIndex>
ATTNEXT_HD V exchange_low(V a, V b, std::integer_sequence<int, kIndex...>) {
  constexpr int kCount = sizeof...(kIndex);
  return __builtin_shufflevector(a, b, ((kIndex & kStep) ? kCount + kIndex - kStep : kIndex)...);
}
template <int kStep, class V, int... kIndex>
ATTNEXT_HD V exchange_high(V a, V b, std::integer_sequence<int, kIndex...>) {
  constexpr int kCount = sizeof...(kIndex);
  return __builtin_shufflevector(a, b, ((kIndex & kStep) ? kCount + kIndex : kIndex + kStep)...);
}

// Swaps the off-diagonal quarters of every 2 kStep x 2 kStep block, then of the halves.
template <class A, int kStep = kLanes<A> / 2>
ATTNEXT_HD void transpose(Vec<A>* r) {
  using Lanes = std::make_integer_sequence<int, kLanes<A>>;
  ATTNEXT_UNROLL for (int i = 0; i < kLanes<A>; ++i) {
    if (i & kStep) continue;
    const Vec<A> a = r[i], b = r[i + kStep];
    r[i] = exchange_low<kStep>(a, b, Lanes{});
    r[i + kStep] = exchange_high<kStep>(a, b, Lanes{});
  }
  if constexpr (kStep > 1) transpose<A, kStep / 2>(r);
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
