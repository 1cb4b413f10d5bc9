// The online softmax on fragments: scores in, weights out, bases and sums kept right.
#pragma once

#include <cfloat>

#include "attention/softmax.h"
#include "mma/scores.cuh"
#include "ptx/thread.h"

namespace attnext::cuda::mma {

// A row that has seen no score has the lowest base there is: weights of masked scores,
// 2^(-infinity - base), are 0 as for every other.
constexpr float kLowestBase = -FLT_MAX;

// A warp's rows so far, a lane's as [fragment][half]. Weights are 2^(score - base), scores to base
// 2; sums are of a lane's own columns.
template <int kRowFragments>
struct RowState {
  float base[kRowFragments][2], row_sum[kRowFragments][2];
  bool is_growing;  // some row of the warp had its base raised by the last tile: the next one may
};

template <int kRowFragments>
PTX_FN void reset(RowState<kRowFragments>& state) {
#pragma unroll
  for (int m = 0; m < kRowFragments; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      state.base[m][half] = kLowestBase;
      state.row_sum[m][half] = 0;
    }
  state.is_growing = true;
}

// Of the four lanes that share a row.
PTX_FN float row_maximum(float x) {
  x = fmaxf(x, ptx::shuffle_xor(x, 1));
  return fmaxf(x, ptx::shuffle_xor(x, 2));
}
PTX_FN float row_total(float x) {
  x += ptx::shuffle_xor(x, 1);
  return x + ptx::shuffle_xor(x, 2);
}

// What a row's maximum may be taken for: as a state of finish() and of those that join others. A
// base that is not the lowest has led to a weight of 1.
PTX_FN float base_of_sum(float base, float row_sum) {
  return row_sum == 0 ? negative_infinity() : base;
}

// How far scores to base 2 may outgrow the base of a row before it is raised: weights of up to 2^8
// fit float16, and most tiles leave what has been summed alone (as in FlashAttention-4).
constexpr float kHeadroom = 8;
// A lane whose weights of a tile add up to no more has none of an outgrown score, with room for the
// roundings on the way.
constexpr float kCalmSum = 128;

// The bases of rows are raised to the maxima of a tile's scores where those outgrow them; o and the
// sums follow. True if some row of the warp was. `factor`, more than 0, makes scores ones to
// base 2.
template <int kRowFragments, int kFragments, int kColumnFragments>
PTX_FN bool raise_bases(const float (&factor)[kRowFragments][2],
                        Accumulator<kRowFragments, kFragments>& s, RowState<kRowFragments>& state,
                        Accumulator<kRowFragments, kColumnFragments>& o) {
  float maxima[kRowFragments][2];
  bool is_outgrown = false;
#pragma unroll
  for (int m = 0; m < kRowFragments; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float largest = negative_infinity();
      for_scores(s, m, half, [&](float& x, int) { largest = fmaxf(largest, x); });
      maxima[m][half] = row_maximum(largest) * factor[m][half];
      is_outgrown |= maxima[m][half] > state.base[m][half] + kHeadroom;
    }
  if (!ptx::warp_any(is_outgrown)) return false;
#pragma unroll
  for (int m = 0; m < kRowFragments; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      // A row does not depend on its neighbours: what they raise leaves it at 2^0.
      const float before = state.base[m][half];
      const float base = maxima[m][half] > before + kHeadroom ? maxima[m][half] : before;
      const float rescale = ptx::ex2(before - base);
      state.base[m][half] = base;
      state.row_sum[m][half] *= rescale;
#pragma unroll
      for (int j = 0; j < kColumnFragments; ++j) {
        o[m][j][2 * half] *= rescale;
        o[m][j][2 * half + 1] *= rescale;
      }
    }
  return true;
}

// s <- p = 2^(factor s - base), and their sums. True if no score can have outgrown its base.
template <int kRowFragments, int kFragments>
PTX_FN bool weigh(const float (&factor)[kRowFragments][2], const RowState<kRowFragments>& state,
                  Accumulator<kRowFragments, kFragments>& s, float (&sums)[kRowFragments][2]) {
  bool is_calm = true;
#pragma unroll
  for (int m = 0; m < kRowFragments; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float scale = factor[m][half], base = state.base[m][half];
      sums[m][half] = 0;
      for_scores(s, m, half, [&](float& x, int) {
        x = ptx::ex2(fmaf(x, scale, -base));
        sums[m][half] += x;
      });
      is_calm &= sums[m][half] <= kCalmSum;  // not so if it is NaN
    }
  return ptx::warp_all(is_calm);
}

// s <- the weights of a tile against the bases of its rows, which `scores(factor)` fills with raw
// scores, and which has been asked for them again if they outgrew a base that was thought to last:
// to know their maxima first takes as long as the exponentials.
template <int kRowFragments, int kFragments, int kColumnFragments, class F>
PTX_FN void soften(Accumulator<kRowFragments, kFragments>& s, RowState<kRowFragments>& state,
                   Accumulator<kRowFragments, kColumnFragments>& o, F&& scores) {
  float sums[kRowFragments][2];
  bool is_exact = state.is_growing;
#pragma unroll 1
  for (;;) {
    float factor[kRowFragments][2];
    scores(factor);
    if (is_exact) state.is_growing = raise_bases(factor, s, state, o);
    if (weigh(factor, state, s, sums) || is_exact) break;
    is_exact = true;
  }
#pragma unroll
  for (int m = 0; m < kRowFragments; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) state.row_sum[m][half] += sums[m][half];
}

}  // namespace attnext::cuda::mma
