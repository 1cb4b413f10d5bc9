// The soft cap of a register tile of scores, cap tanh(s / cap), and its slope.
#pragma once

#include "cpu/tile/matmul.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

template <class A>
struct Softcapped {
  Vec<A> score, slope;
};

// Near zero a short formula does. What a pair gets depends on its own score alone, whichever way
// its tile takes.
template <class A>
ATTNEXT_HD IntVec<A> is_near_zero(Vec<A> s, A cap) {
  return absolute<A>(s) < splat<A>(cap * kNearZero<A>);
}
template <class A>
ATTNEXT_HD Softcapped<A> softcap_near_zero(Vec<A> s, A cap) {
  const Vec<A> x = s * (1 / cap), square = x * x, tanh = tanh_near_zero<A>(x, square);
  return {tanh_near_zero<A>(s, square), multiply_add<A>(-tanh, tanh, splat<A>(A(1)))};
}

// Anywhere. In a function of its own: unrolled over a register tile a tanh would be most of the
// library.
template <class A>
static __attribute__((noinline)) void apply_softcap(A cap, int64_t rows, int64_t width, A* s,
                                                    A* slope, int64_t stride) {
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t i = 0; i < width; i += kLanes<A>) {
      const Vec<A> x = load<A>(s + row * width + i);
      const IntVec<A> is_near = is_near_zero(x, cap);
      const Softcapped<A> near = softcap_near_zero(x, cap);
      store<A>(s + row * width + i, select<A>(is_near, near.score, softcap<VectorMath<A>>(x, cap)));
      if (slope)
        store<A>(slope + row * stride + i,
                 select<A>(is_near, near.slope, softcap_slope<VectorMath<A>>(x, cap)));
    }
}

// Most scores are far below a cap, and so are whole tiles of them: a few multiply-adds in
// registers, compiled for tiles of the full size, which most are. `scratch` has room for one;
// `slope` [keys][stride], null: not wanted.
template <class A, int kKeys, int kVectors>
ATTNEXT_HD void apply_softcap(A cap, A* scratch, A* slope, int64_t stride,
                              Vec<A> (&s)[kKeys][kVectors]) {
  constexpr int kWidth = kVectors * kLanes<A>;
  if constexpr (kKeys == kScoreKeys && kVectors == kPanelVectors) {
    Vec<A> largest{};
    for_vectors<A>(s, [&](Vec<A>& x, int, int) { largest = maximum<A>(absolute<A>(x), largest); });
    if (!any<A>(~is_near_zero(largest, cap)))
      return for_vectors<A>(s, [&](Vec<A>& x, int i, int lane) {
        const Softcapped<A> capped = softcap_near_zero(x, cap);
        x = capped.score;
        if (slope) store<A>(slope + i * stride + lane, capped.slope);
      });
  }
  store_tile<A>(s, scratch, kWidth);
  apply_softcap<A>(cap, kKeys, kWidth, scratch, slope, stride);
  for_vectors<A>(s, [&](Vec<A>& x, int i, int lane) { x = load<A>(scratch + i * kWidth + lane); });
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
