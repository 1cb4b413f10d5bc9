// The forward kernel: one block a tile of rows, or a split of the keys of a few rows; and how its
// results leave.
#pragma once

#include "mma/forward.cuh"

namespace attnext::cuda::mma {

template <class Shape>
PTX_FN void store_row(const ForwardArguments& a, const Group& g, int64_t row, int lane,
                      const FinishedRow<float>& finished, const float (&o)[Shape::kHeadDim / 8][4],
                      int half) {
  const Problem& p = a.params.problem;
  const bool exists = row < g.num_rows;
  if (!exists && row >= rows_in_memory(p, g)) return;
  const Position at = position_of(g, row);
  const int64_t offset = row_offset(p, g, a.params.out, at);
  const int columns = static_cast<int>(p.head_dim_v);
#pragma unroll
  for (int j = 0; j < Shape::kHeadDim / 8; ++j) {
    const int column = 8 * j + fragment_column(lane);
    // 0 * infinity of a masked value must not reach a row that has no keys.
    const bool is_empty = !exists || finished.is_empty;
    const float empty = exists ? finished.factor : 0;
    store_pair(a.params.out, a.out_has_pairs, offset, column, columns,
               is_empty ? empty : o[j][2 * half] * finished.factor,
               is_empty ? empty : o[j][2 * half + 1] * finished.factor);
  }
  if (is_present(a.params.lse) && lane % 4 == 0)
    write_element(a.params.lse, row_offset(p, g, a.params.lse, at),
                  exists ? finished.lse : negative_infinity());
}

// The state of a split: combined later, in the order of the keys.
template <class Shape>
PTX_FN void store_partial(const ForwardArguments& a, const Group& g, int64_t split, int64_t row,
                          int lane, float base, float row_sum,
                          const float (&o)[Shape::kHeadDim / 8][4], int half) {
  if (row >= g.num_rows) return;
  const Problem& p = a.params.problem;
  const int64_t at =
      ((g.sequence * p.num_heads_kv + g.head_kv) * a.splits + split) * a.partial_rows + row;
  if (lane % 4 == 0) ptx::st_global(a.states + at, make_float2(base, row_sum));
  const int columns = static_cast<int>(p.head_dim_v);
#pragma unroll
  for (int j = 0; j < Shape::kHeadDim / 8; ++j) {
    const int column = 8 * j + fragment_column(lane);
    float* to = a.partials + at * p.head_dim_v + column;
    if (column < columns) ptx::st_global(to, o[j][2 * half]);
    if (column + 1 < columns) ptx::st_global(to + 1, o[j][2 * half + 1]);
  }
}

// A warp's state and sums in shared memory, `step` bytes between those of a lane, joined to
// another's.
template <class Shape>
PTX_FN void join_state(uint32_t at, uint32_t step, RowState<1>& state,
                       Accumulator<1, Shape::kHeadDim / 8>& o) {
  const float4 other = ptx::ld_shared<float4>(at);
  const float bases[2] = {other.x, other.y}, sums[2] = {other.z, other.w};
  float mine[2], its[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float before = state.base[0][half], both = fmaxf(before, bases[half]);
    mine[half] = state_weight<ThreadMath<float>>(before, both);
    its[half] = state_weight<ThreadMath<float>>(bases[half], both);
    state.base[0][half] = both;
    state.row_sum[0][half] = state.row_sum[0][half] * mine[half] + sums[half] * its[half];
  }
#pragma unroll
  for (int j = 0; j < Shape::kHeadDim / 8; ++j) {
    const float4 x = ptx::ld_shared<float4>(at + (j + 1) * step);
    o[0][j][0] = o[0][j][0] * mine[0] + x.x * its[0];
    o[0][j][1] = o[0][j][1] * mine[0] + x.y * its[0];
    o[0][j][2] = o[0][j][2] * mine[1] + x.z * its[1];
    o[0][j][3] = o[0][j][3] * mine[1] + x.w * its[1];
  }
}

// The warps of a block have seen different keys: what they have joins the first one's, in the order
// of the warps. True for the one that has it all.
template <class Shape>
PTX_FN bool join_warps(RowState<1>& state, Accumulator<1, Shape::kHeadDim / 8>& o) {
  using Memory = ForwardMemory<Shape>;
  constexpr int kFragments = Shape::kHeadDim / 8;
  constexpr uint32_t kStep = 32 * sizeof(float4), kWarpBytes = kStep * (kFragments + 1);
  static_assert((Shape::kWarps - 1) * kWarpBytes <= Shape::kStages * 2 * Memory::kTileBytes);
  const uint32_t warp = ptx::warp_index();
  uint32_t at = ptx::dyn_smem() + Memory::kStages + ptx::lane_index() * sizeof(float4);
  ptx::block_sync();  // nobody reads keys any more
  if (warp > 0) {
    at += (warp - 1) * kWarpBytes;
    ptx::st_shared(at, make_float4(state.base[0][0], state.base[0][1], state.row_sum[0][0],
                                   state.row_sum[0][1]));
#pragma unroll
    for (int j = 0; j < kFragments; ++j)
      ptx::st_shared(at + (j + 1) * kStep,
                     make_float4(o[0][j][0], o[0][j][1], o[0][j][2], o[0][j][3]));
  }
  ptx::block_sync();  // what they have is there
  if (warp > 0) return false;
#pragma unroll 1
  for (int other = 1; other < Shape::kWarps; ++other, at += kWarpBytes)
    join_state<Shape>(at, kStep, state, o);
  return true;
}

template <class Element, class Shape>
PTX_FN void run_forward_block(const ForwardArguments& a) {
  const Problem& p = a.params.problem;
  const Place place = place_of(p, block_number(), a.items);
  if (place.sequence >= p.batch) return;
  const Group start = group_of(p, place.sequence, place.head_kv);
  if (has_few_rows(start.num_rows) != Shape::kSharesKeys) return;
  const ForwardItem item = forward_item<Shape>(p, start, place.index);
  if (!item.is_there) return;
  const auto block = forward_block<Element, Shape>(a, start, item.first_row);
  RowState<Shape::kRowFragments> state;
  Accumulator<Shape::kRowFragments, Shape::kHeadDim / 8> o;
  reset(state);
  clear(o);
  block.run(item.keys, state, o);
  if constexpr (Shape::kSharesKeys)
    if (!join_warps<Shape>(state, o)) return;
  const Group g = block.group();
  const WarpTile tile = block.tile_of(g, 0, TileKind::kFull);
#pragma unroll
  for (int m = 0; m < Shape::kRowFragments; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t row = tile.first_row + 16 * m + fragment_row(tile.lane, half);
      const float sum = row_total(state.row_sum[m][half]),
                  base = base_of_sum(state.base[m][half], sum);
      if (splits_of(g.mask, g.num_rows) > 1) {
        store_partial<Shape>(a, g, place.index, row, tile.lane, base, sum, o[m], half);
        continue;
      }
      const Position at = position_of(g, max_of(row_of(g, tile, m, half), 0));
      store_row<Shape>(a, g, row, tile.lane, finish(p, g, at, base, sum, tile.lane), o[m], half);
    }
}

template <class Element, class Shape>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kMinBlocks)
    forward_kernel(const __grid_constant__ ForwardArguments a) {
  if constexpr (is_compiled(Shape::kBudget)) run_forward_block<Element, Shape>(a);
}

}  // namespace attnext::cuda::mma
