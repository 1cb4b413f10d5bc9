// Memory of gradients that nobody asked for, where a kernel writes them beside one that is wanted.
#pragma once

#include "simt/backward.cuh"
#include "simt/dispatch.h"

namespace attnext::cuda::simt {

// In the shape and dtype of `t`.
inline TensorView unread_like(const TensorView& t, Launch& launch) {
  TensorView unread = t;
  int64_t count = 1;
  for (int axis = t.ndim - 1; axis >= 0; --axis) {
    unread.strides[axis] = count;
    count *= t.shape[axis];
  }
  unread.data = launch.take<char>(count * size_of(dtype_of(t)));
  return unread;
}

// Afterwards dq is present where anything is found with it, and `has_both`, where one kernel makes
// dk and dv, both of them or neither.
inline void take_unread(BackwardParams& params, bool has_both, Launch& launch) {
  const Problem& p = params.problem;
  const bool has_query_sums = has_row_sums(params) || params.dweight || params.dscore_bias;
  if (has_query_sums && !is_present(params.dq)) params.dq = unread_like(p.q, launch);
  if (!has_both || is_present(params.dk) == is_present(params.dv)) return;
  if (is_present(params.dk))
    params.dv = unread_like(p.v, launch);
  else
    params.dk = unread_like(p.k, launch);
}

}  // namespace attnext::cuda::simt
