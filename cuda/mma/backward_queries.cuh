// dq: one block a tile of query rows, over all keys they see. Three products: s, dp, dq.
#pragma once

#include "mma/backward.cuh"

namespace attnext::cuda::mma {

template <class Element, class Shape>
PTX_FN void sum_queries(const BackwardBlock<Element, Shape>& block, int64_t first_row, Span keys,
                        RowSums& row_sums, typename BackwardBlock<Element, Shape>::Sums& dq) {
  using Block = BackwardBlock<Element, Shape>;
  using Memory = typename Block::Memory;
  const BackwardArguments& a = block.a;
  const Problem& p = a.params.problem;
  block.load_rows_and_gradients(first_row);
  block.load_keys(p.k, a.k_has_chunks, Memory::kK, keys.begin);
  block.load_keys(p.v, a.v_has_chunks, Memory::kV, keys.begin);
  ptx::cp_async_commit();
  const GradientRows rows = gradient_rows(a, block.group(), first_row + Block::warp_row(),
                                          Block::lane(), block.reference);
#pragma unroll 1
  for (int64_t begin = keys.begin; begin < keys.end; begin += Shape::kTileK) {
    ptx::cp_async_wait<0>();
    ptx::block_sync();  // k and v are there
    const Group g = block.group();
    const WarpTile tile = block.tile_at(g, first_row, begin, Shape::kTileK);
    Accumulator<1, Shape::kTileK / 8> s, dp;
    if (tile.kind != TileKind::kSkip) block.multiply(0, s, dp);
    if (block.has_cosine()) {
      if (begin == keys.begin) block.invert_query_norms();
      block.invert_key_norms();
    }
    ptx::block_sync();  // nobody reads v any more, and the norms are there
    const bool has_next = begin + Shape::kTileK < keys.end;
    if (has_next) {
      block.load_keys(p.v, a.v_has_chunks, Memory::kV, begin + Shape::kTileK);
      ptx::cp_async_commit();
    }
    if (tile.kind != TileKind::kSkip) {
      block.differentiate(g, tile, rows, 0, GradientFor::kQueries, a.row_sums != nullptr, s, dp,
                          row_sums);
      multiply_weights<Element>(dp, ptx::dyn_smem() + Memory::kK, Block::lane(), dq);
    }
    if (!has_next) continue;
    ptx::block_sync();  // nor k
    block.load_keys(p.k, a.k_has_chunks, Memory::kK, begin + Shape::kTileK);
    ptx::cp_async_commit();
  }
}

PTX_FN void store_row_sums(const BackwardArguments& a, const Group& g, Position at, bool exists,
                           int lane, const float (&sums)[kNumRowSums]) {
#pragma unroll
  for (int i = 0; i < kNumRowSums; ++i) {
    const float sum = row_total(sums[i]);
    if (exists && lane % 4 == 0)
      ptx::st_global(a.row_sums + workspace_row(g, at) * kNumRowSums + i, static_cast<double>(sum));
  }
}

template <class Element, class Shape>
PTX_FN void store_queries(const BackwardBlock<Element, Shape>& block, int64_t first_row,
                          bool has_keys, const RowSums& row_sums,
                          const typename BackwardBlock<Element, Shape>::Sums& dq) {
  using Block = BackwardBlock<Element, Shape>;
  using Memory = typename Block::Memory;
  const BackwardArguments& a = block.a;
  const Group g = block.group();
  const uint32_t shared = ptx::dyn_smem();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int tile_row = Block::warp_row() + fragment_row(Block::lane(), half);
    const int64_t row = first_row + tile_row;
    const Position at = position_of(g, row);
    const bool exists = row < g.num_rows;
    block.store_gradient(a.params.dq, a.dq_has_pairs, row_offset(g, a.params.dq, at),
                         static_cast<int>(a.params.problem.head_dim), shared + Memory::kQ,
                         shared + Memory::kNormsQ, tile_row, exists, row < rows_in_memory(g), half,
                         block.has_cosine() && has_keys, block.reference, dq);
    if constexpr (Shape::kHasOptions)
      if (a.row_sums) store_row_sums(a, g, at, exists, Block::lane(), row_sums[half]);
  }
}

template <class Element, class Shape>
PTX_FN void run_queries_block(const BackwardArguments& a) {
  const Place place = place_of(a.params.problem, a.items);
  if (place.sequence >= a.params.problem.batch) return;
  const Group g = group_of(a.params.problem, place.sequence, place.head_kv);
  // The last rows of a causal sequence have the most keys: first, so that the end is shared out.
  const int64_t first_row = (a.items - 1 - place.index) * Shape::kTileQ;
  if (first_row >= rows_in_memory(g)) return;
  const BackwardBlock<Element, Shape> block{a, static_cast<int32_t>(g.sequence),
                                            static_cast<int32_t>(g.head_kv), reference_scale(g)};
  typename BackwardBlock<Element, Shape>::Sums dq;
  clear(dq);
  const Span rows = {first_row, min_of(first_row + Shape::kTileQ, g.num_rows)};
  const Span reachable =
      rows.begin < rows.end ? reachable_keys(g.mask, queries_of(g, rows)) : Span{0, 0};
  const Span keys = {reachable.begin / Shape::kTileK * Shape::kTileK, reachable.end};
  const bool has_keys = keys.begin < keys.end;
  RowSums row_sums = {};
  if (has_keys) sum_queries(block, first_row, keys, row_sums, dq);
  store_queries(block, first_row, has_keys, row_sums, dq);
}

template <class Element, class Shape>
__global__ void __launch_bounds__(Shape::kThreads)
    backward_queries_kernel(const __grid_constant__ BackwardArguments a) {
  if constexpr (is_compiled(Shape::kBudget)) run_queries_block<Element, Shape>(a);
}

}  // namespace attnext::cuda::mma
