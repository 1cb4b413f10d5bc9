// What a row's softmax comes to once all of its keys have been seen.
#pragma once

#include "common/rows.cuh"

namespace attnext::cuda {

// Accumulated values of a row that is_empty are to be taken as 0: 0 * infinity of a masked value
// must not reach it.
template <class A>
struct FinishedRow {
  A factor;  // out = factor * accumulated p v
  A lse;
  bool is_empty;  // without a maximum
};

// `row_max` to base 2, `row_sum` of the whole row.
template <class A>
PTX_FN FinishedRow<A> finish_state(const Problem& p, int64_t head, A row_max, A row_sum) {
  const A sink = p.sinks ? static_cast<A>(p.sinks[head] * kLog2E) : negative_infinity<A>();
  const RowResult<A> r = finish_row<ThreadMath<A>>(row_max, row_sum, sink, A(kLn2));
  return {r.factor, r.lse, row_max == negative_infinity<A>()};
}

// Of a row that is_empty: `has_key` says whether by its logits or by its masks.
template <class A>
PTX_FN void finish_empty(bool has_key, FinishedRow<A>* row) {
  row->factor = empty_row_factor<A>(has_key);
  if (has_key) row->lse = row->factor;
}

}  // namespace attnext::cuda
