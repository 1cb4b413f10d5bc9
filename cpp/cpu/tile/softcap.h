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
  return {tanh_near_zero<A>(s, square), A(1) - tanh * tanh};
}

// Anywhere. In functions of their own: unrolled over a register tile a tanh would be most of the
// library. And in two: in one, gcc contracts the short formula otherwise than in registers.
template <class A>
static __attribute__((noinline)) void apply_softcap(A cap, int64_t count, A* s) {
  for (int64_t i = 0; i < count; i += kLanes<A>) {
    const Vec<A> x = load<A>(s + i);
    store<A>(s + i, select<A>(is_near_zero(x, cap), softcap_near_zero(x, cap).score,
                              softcap<VectorMath<A>>(x, cap)));
  }
}
template <class A>
static __attribute__((noinline)) void store_softcap_slope(A cap, int64_t rows, int64_t width,
                                                          const A* s, A* slope, int64_t stride) {
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t i = 0; i < width; i += kLanes<A>) {
      const Vec<A> x = load<A>(s + row * width + i);
      store<A>(slope + row * stride + i,
               select<A>(is_near_zero(x, cap), softcap_near_zero(x, cap).slope,
                         softcap_slope<VectorMath<A>>(x, cap)));
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
  if (slope) store_softcap_slope<A>(cap, kKeys, kWidth, scratch, slope, stride);
  apply_softcap<A>(cap, kKeys * kWidth, scratch);
  for_vectors<A>(s, [&](Vec<A>& x, int i, int lane) { x = load<A>(scratch + i * kWidth + lane); });
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
