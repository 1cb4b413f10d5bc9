// Joins the splits of rows whose keys were shared out, in the order of their keys: a warp a row.
#pragma once

#include "mma/forward.cuh"

namespace attnext::cuda::mma {

constexpr int kCombineWarps = 4;

struct CombinedState {
  float row_max, row_sum;
};

PTX_FN CombinedState combine_states(const float2* states, int64_t stride, int64_t splits) {
  CombinedState all = {negative_infinity(), 0};
  for (int64_t i = 0; i < splits; ++i)
    all.row_max = fmaxf(all.row_max, ptx::ld_global(states + i * stride).x);
  for (int64_t i = 0; i < splits; ++i) {
    const float2 state = ptx::ld_global(states + i * stride);
    all.row_sum += state.y * state_weight<ThreadMath<float>>(state.x, all.row_max);
  }
  return all;
}

PTX_FN void combine_row(const ForwardArguments& a, const Group& g, int64_t row, int lane) {
  const Problem& p = a.params.problem;
  const bool exists = row < g.num_rows;
  const Position at = position_of(g, row);
  const int64_t first =
      (g.sequence * p.num_heads_kv + g.head_kv) * a.splits * a.partial_rows + (exists ? row : 0);
  const int64_t splits = splits_of(g.mask, g.num_rows);
  const CombinedState all = combine_states(a.states + first, a.partial_rows, splits);
  const FinishedRow<float> finished =
      finish(p, g, position_of(g, exists ? row : 0), all.row_max, all.row_sum, lane);
  if (is_present(a.params.lse) && lane == 0)
    write_element(a.params.lse, row_offset(p, g, a.params.lse, at),
                  exists ? finished.lse : negative_infinity());
  const TensorView& out = a.params.out;
  const int64_t first_column = row_offset(p, g, out, at);
  for (int64_t column = lane; column < p.head_dim_v; column += 32) {
    float sum = 0;
    for (int64_t i = 0; i < splits; ++i) {
      const int64_t part = first + i * a.partial_rows;
      sum += ptx::ld_global(a.partials + part * p.head_dim_v + column) *
             state_weight<ThreadMath<float>>(ptx::ld_global(a.states + part).x, all.row_max);
    }
    const float empty = exists ? finished.factor : 0;
    write_element(out, first_column + column * out.strides[3],
                  exists && !finished.is_empty ? sum * finished.factor : empty);
  }
}

__global__ void __launch_bounds__(32 * kCombineWarps)
    combine_kernel(const __grid_constant__ ForwardArguments a) {
  const Problem& p = a.params.problem;
  const int64_t rows = p.seqlen_q * p.group_size;
  const Place place = place_of(p, block_number(), divide_up(rows, kCombineWarps));
  if (place.sequence >= p.batch) return;
  const Group g = group_of(p, place.sequence, place.head_kv);
  const int64_t row = place.index * kCombineWarps + ptx::warp_index();
  if (splits_of(g.mask, g.num_rows) == 1 || row >= rows_in_memory(p, g)) return;
  combine_row(a, g, row, static_cast<int>(ptx::lane_index()));
}

}  // namespace attnext::cuda::mma
