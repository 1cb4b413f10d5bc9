// dk and dv: one block a tile of keys, over all rows of the group that see them, so that the heads
// of a group are added up in registers. Four products: s, dp, dv, dk.
#pragma once

#include "mma/backward.cuh"

namespace attnext::cuda::mma {

// The weights of a warp's rows, and their gradients, to shared memory: some keys at a time, as dk
// and dv fill the registers.
template <class Element, class Shape, KeyGradients kWanted>
PTX_FN void store_weights(const BackwardBlock<Element, Shape>& block, int64_t first_row,
                          int64_t begin) {
  using Block = BackwardBlock<Element, Shape>;
  using Memory = typename Block::Memory;
  constexpr int kWidth = score_columns(Shape::kHeadDim, Shape::kTileK);
  const uint32_t shared = ptx::dyn_smem();
  const int lane = Block::lane(), warp_row = Block::warp_row();
  const Group g = block.group();
#pragma unroll
  for (int column = 0; column < Shape::kTileK; column += kWidth) {
    const WarpTile tile = block.tile_at(g, first_row, begin + column, kWidth);
    Accumulator<1, kWidth / 8> s, dp;
    clear(s);
    clear(dp);
    if (tile.kind != TileKind::kSkip) {
      block.multiply(column, s, dp);
      const GradientRows rows =
          gradient_rows(block.a, g, first_row + warp_row, lane, block.reference);
      RowSums none;
      block.differentiate(g, tile, rows, column, GradientFor::kKeys, false, s, dp, none);
    }
    if (kWanted != KeyGradients::kKeys)
      store_fragments<Element, Shape::kTileK>(s, warp_row, column, lane, shared + Memory::kP);
    if (kWanted != KeyGradients::kValues)
      store_fragments<Element, Shape::kTileK>(dp, warp_row, column, lane, shared + Memory::kDs);
  }
}

template <class Element, class Shape, KeyGradients kWanted>
PTX_FN void sum_keys(const BackwardBlock<Element, Shape>& block, int64_t begin, Span rows,
                     typename BackwardBlock<Element, Shape>::Sums& dk,
                     typename BackwardBlock<Element, Shape>::Sums& dv) {
  using Block = BackwardBlock<Element, Shape>;
  using Memory = typename Block::Memory;
  const BackwardArguments& a = block.a;
  const uint32_t shared = ptx::dyn_smem();
  const int lane = Block::lane(), warp_key = Block::warp_row();
  block.load_keys(a.params.problem.k, a.k_has_chunks, Memory::kK, begin);
  block.load_keys(a.params.problem.v, a.v_has_chunks, Memory::kV, begin);
#pragma unroll 1
  for (int64_t first_row = rows.begin; first_row < rows.end; first_row += Shape::kTileQ) {
    block.load_rows_and_gradients(first_row);
    ptx::cp_async_wait<0>();
    ptx::block_sync();  // q and dout are there
    if (block.has_cosine()) {
      block.invert_query_norms();
      if (first_row == rows.begin) block.invert_key_norms();
      ptx::block_sync();
    }
    store_weights<Element, Shape, kWanted>(block, first_row, begin);
    ptx::block_sync();  // the weights of all rows are there
    if constexpr (kWanted != KeyGradients::kKeys)
      multiply_columns<Element, Shape::kTileQ, Shape::kTileK>(shared + Memory::kP, warp_key,
                                                              shared + Memory::kDout, lane, dv);
    if constexpr (kWanted != KeyGradients::kValues)
      multiply_columns<Element, Shape::kTileQ, Shape::kTileK>(shared + Memory::kDs, warp_key,
                                                              shared + Memory::kQ, lane, dk);
    ptx::block_sync();  // nobody reads q, dout and the weights any more
  }
}

template <class Element, class Shape, KeyGradients kWanted>
PTX_FN void run_keys_block(const BackwardArguments& a) {
  using Block = BackwardBlock<Element, Shape>;
  using Memory = typename Block::Memory;
  const Problem& p = a.params.problem;
  const Place place = place_of(p, a.items);
  if (place.sequence >= p.batch) return;
  const Group start = group_of(p, place.sequence, place.head_kv);
  const int64_t begin = place.index * Shape::kTileK;
  if (begin >= keys_in_memory(start)) return;
  const Block block{a, static_cast<int32_t>(start.sequence), static_cast<int32_t>(start.head_kv),
                    reference_scale(start)};
  typename Block::Sums dk, dv;
  clear(dk);
  clear(dv);
  const Span keys = {begin, min_of(begin + Shape::kTileK, start.mask.seqlen_k)};
  const Span queries = keys.begin < keys.end ? visible_queries(start.mask, keys) : Span{0, 0};
  const Span rows = {queries.begin * start.num_heads / Shape::kTileQ * Shape::kTileQ,
                     queries.end * start.num_heads};
  const bool has_rows = queries.begin < queries.end;
  if (has_rows) sum_keys<Element, Shape, kWanted>(block, begin, rows, dk, dv);
  const Group g = block.group();
  const uint32_t shared = ptx::dyn_smem();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = Block::warp_row() + fragment_row(Block::lane(), half);
    const int64_t key = begin + row;
    const bool exists = key < g.mask.seqlen_k, is_stored = key < keys_in_memory(g);
    if constexpr (kWanted != KeyGradients::kValues)
      block.store_gradient(a.params.dk, a.dk_has_pairs, key_offset(g, a.params.dk, key),
                           static_cast<int>(p.head_dim), shared + Memory::kK,
                           shared + Memory::kNormsK, row, exists, is_stored, half,
                           block.has_cosine() && has_rows, block.reference, dk);
    if constexpr (kWanted != KeyGradients::kKeys)
      block.store_gradient(a.params.dv, a.dv_has_pairs, key_offset(g, a.params.dv, key),
                           static_cast<int>(p.head_dim_v), 0, 0, row, exists, is_stored, half,
                           false, 1, dv);
  }
}

template <class Element, class Shape, KeyGradients kWanted>
__global__ void __launch_bounds__(Shape::kThreads)
    backward_keys_kernel(const __grid_constant__ BackwardArguments a) {
  if constexpr (is_compiled(Shape::kBudget)) run_keys_block<Element, Shape, kWanted>(a);
}

}  // namespace attnext::cuda::mma
