// The online softmax on fragments: scores in, weights out, running maxima and sums kept right.
#pragma once

#include "attention/softmax.h"
#include "mma/scores.cuh"
#include "ptx/thread.h"

namespace attnext::cuda::mma {

// A warp's rows so far, a lane's as [fragment][half]. Maxima are to base 2; sums are of a lane's
// own columns.
template <int kRowFragments>
struct RowState {
  float row_max[kRowFragments][2], row_sum[kRowFragments][2];
};

template <int kRowFragments>
PTX_FN void reset(RowState<kRowFragments>& state) {
#pragma unroll
  for (int m = 0; m < kRowFragments; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      state.row_max[m][half] = negative_infinity();
      state.row_sum[m][half] = 0;
    }
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

// s <- p = 2^(factor s - row_max), the maximum raised before, o and the sums rescaled to it.
// `factor`, more than 0, makes scores ones to base 2.
template <int kRowFragments, int kFragments, int kColumnFragments>
PTX_FN void soften(const float (&factor)[kRowFragments][2],
                   Accumulator<kRowFragments, kFragments>& s, RowState<kRowFragments>& state,
                   Accumulator<kRowFragments, kColumnFragments>& o) {
#pragma unroll
  for (int m = 0; m < kRowFragments; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float scale = factor[m][half], before = state.row_max[m][half];
      float largest = negative_infinity();
      for_scores(s, m, half, [&](float& x, int) { largest = fmaxf(largest, x); });
      const float row_max = fmaxf(before, row_maximum(largest) * scale);
      // While every score is masked the weights are 2^(-infinity - 0) = 0, not
      // 2^(-infinity + infinity).
      const float base = ThreadMath<float>::finite_or_zero(row_max);
      const float rescale = ptx::ex2(before - base);
      float sum = state.row_sum[m][half] * rescale;
      for_scores(s, m, half, [&](float& x, int) {
        x = ptx::ex2(fmaf(x, scale, -base));
        sum += x;
      });
      state.row_max[m][half] = row_max;
      state.row_sum[m][half] = sum;
#pragma unroll
      for (int j = 0; j < kColumnFragments; ++j) {
        o[m][j][2 * half] *= rescale;
        o[m][j][2 * half + 1] *= rescale;
      }
    }
}

}  // namespace attnext::cuda::mma
