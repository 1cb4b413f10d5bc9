// Joins the splits of rows that were shared out over keys, in the order of their keys: a warp a
// row.
#pragma once

#include "simt/forward.cuh"
#include "simt/warp.cuh"

namespace attnext::cuda::simt {

// The state of all splits of a row together.
template <class A>
struct JoinedState {
  A row_max, row_sum;
};

template <class A>
PTX_FN JoinedState<A> join_states(const SplitStates<A>& s, int64_t first, int64_t row,
                                  int64_t splits) {
  using Math = ThreadMath<A>;
  JoinedState<A> joined = {negative_infinity<A>(), A(0)};
  for (int64_t split = 0; split < splits; ++split)
    joined.row_max = Math::maximum(joined.row_max, s.row_max[(first + split) * s.rows + row]);
  for (int64_t split = 0; split < splits; ++split) {
    const int64_t at = (first + split) * s.rows + row;
    joined.row_sum += s.row_sum[at] * state_weight<Math>(s.row_max[at], joined.row_max);
  }
  return joined;
}

template <class A>
PTX_FN void combine_row(const ForwardArguments<A>& a, const Group& g, int64_t row, int64_t splits) {
  const ForwardParams& params = a.params;
  const Problem& p = params.problem;
  const SplitStates<A>& s = a.splits;
  const int64_t first = (g.sequence * p.num_heads_kv + g.head_kv) * s.num_splits;
  FinishedRow<A> finished = {A(0), negative_infinity<A>(), true};
  JoinedState<A> joined{};
  if (row < g.num_rows) {
    joined = join_states(s, first, row, splits);
    finished = finish_row_of(p, g, row, joined.row_max, joined.row_sum);
  }
  const int lane = static_cast<int>(ptx::lane_index());
  if (lane == 0 && is_present(params.lse))
    write_element<A>(row_pointer(p, g, params.lse, row), dtype_of(params.lse), finished.lse);
  char* out = row_pointer(p, g, params.out, row);
  const int64_t bytes = params.out.strides[3] * size_of(dtype_of(params.out));
  for (int64_t d = lane; d < p.head_dim_v; d += 32) {
    A sum = A(0);
    for (int64_t split = 0; !finished.is_empty && split < splits; ++split) {
      const int64_t at = (first + split) * s.rows + row;
      sum +=
          s.o[at * p.head_dim_v + d] * state_weight<ThreadMath<A>>(s.row_max[at], joined.row_max);
    }
    write_element<A>(out + d * bytes, dtype_of(params.out), sum * finished.factor);
  }
}

template <class A>
__global__ void __launch_bounds__(kThreads, 1)
    combine_kernel(const __grid_constant__ ForwardArguments<A> a) {
  const Problem& p = a.params.problem;
  const int64_t rows = p.seqlen_q * p.group_size;
  for_warps(p.batch * p.num_heads_kv * rows, [&](int64_t i) {
    const Place at = place_of(p, i, rows);
    const Group g = group_of(p, at.sequence, at.head_kv);
    const int64_t splits = num_splits(g.mask, p.group_size);
    if (splits > 1 && at.index < rows_in_memory(p, g)) combine_row(a, g, at.index, splits);
  });
}

}  // namespace attnext::cuda::simt
