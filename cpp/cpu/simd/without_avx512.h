// What AVX-512 has an instruction for, where there is none or its vectors are too short for it.
#pragma once

#include "cpu/simd/vec.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

// There is no portable way past the caches, and vectors that are half a cache line would leave for
// memory one half at a time.
constexpr bool kStreamsLines = false;
template <class A>
ATTNEXT_HD void stream(A* p, Vec<A> x) {
  store<A>(p, x);
}
ATTNEXT_HD void finish_streaming() {}

// x - *p and sum + x * *p, the number from memory in every lane.
template <class A>
ATTNEXT_HD Vec<A> subtract_broadcast(Vec<A> x, const A* p) {
  return x - splat<A>(*p);
}
template <class A>
ATTNEXT_HD Vec<A> add_broadcast_product(Vec<A> sum, Vec<A> x, const A* p) {
  return sum + x * splat<A>(*p);
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
