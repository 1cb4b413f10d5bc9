// The online softmax over a thread's rows: scores in, weights out, the running sums kept right. All
// 16 threads of a row hold its maximum, and each the sum of its own keys.
#pragma once

#include "attention/softmax.h"
#include "common/finish.cuh"
#include "simt/tile.cuh"

namespace attnext::cuda::simt {

// Scores to base 2; sums are relative to row_max.
template <int kRows, class A>
struct RowStates {
  A row_max[kRows], row_sum[kRows];
};

template <int kRows, class A>
PTX_FN void reset(RowStates<kRows, A>& states) {
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    states.row_max[i] = negative_infinity<A>();
    states.row_sum[i] = A(0);
  }
}

// s <- p = 2^(s - row_max), the maximum raised before and the sums after. What was accumulated for
// row i is to be multiplied by rescale[i].
template <int kRows, class A>
PTX_FN void soften(A (&s)[kRows][kQuad], RowStates<kRows, A>& states, A (&rescale)[kRows]) {
  using Math = ThreadMath<A>;
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    A largest = s[i][0];
#pragma unroll
    for (int j = 1; j < kQuad; ++j) largest = Math::maximum(largest, s[i][j]);
    const A row_max = Math::maximum(states.row_max[i], row_maximum_of(largest));
    rescale[i] = state_weight<Math>(states.row_max[i], row_max);
    states.row_max[i] = row_max;
    // While every score is masked the weights are 2^(-infinity - 0) = 0, not
    // 2^(-infinity + infinity).
    const A base = Math::finite_or_zero(row_max);
    A sum = A(0);
#pragma unroll
    for (int j = 0; j < kQuad; ++j) {
      s[i][j] = Math::exp2(s[i][j] - base);
      sum += s[i][j];
    }
    states.row_sum[i] = states.row_sum[i] * rescale[i] + sum;
  }
}

template <int kRows, class A>
PTX_FN void join_sums(RowStates<kRows, A>& states) {
#pragma unroll
  for (int i = 0; i < kRows; ++i) states.row_sum[i] = row_sum_of(states.row_sum[i]);
}

template <class A>
PTX_FN FinishedRow<A> finish_row_of(const Problem& p, const Group& g, int64_t row, A row_max,
                                    A row_sum) {
  const Position at = position_of(g, row);
  FinishedRow<A> finished = finish_state(p, at.head, row_max, row_sum);
  if (finished.is_empty) finish_empty(has_visible_key(p, g, at, 0, 1), &finished);
  return finished;
}

}  // namespace attnext::cuda::simt
