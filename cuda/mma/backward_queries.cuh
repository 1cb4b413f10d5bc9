// dq: one block a tile of query rows, over all keys they see. Three products: s, dp, dq.
#pragma once

#include "mma/backward.cuh"

namespace attnext::cuda::mma {

template <class Element, class Shape>
PTX_FN void sum_queries(const BackwardBlock<Element, Shape>& block, Span keys,
                        typename BackwardBlock<Element, Shape>::RowSums& row_sums,
                        typename BackwardBlock<Element, Shape>::Sums& dq) {
  using Block = BackwardBlock<Element, Shape>;
  using Scores = typename Block::Scores;
  const Group g = block.group();
  GradientRow rows[Shape::kRowFragments][2];
#pragma unroll
  for (int m = 0; m < Shape::kRowFragments; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = Block::warp_row() + 16 * m + fragment_row(Block::lane(), half);
      rows[m][half] =
          gradient_row<Shape::kHasOptions>(block.a, g, block.first_owned() + row, block.scales);
    }
  block.template walk<true>(keys, [&](Scores& s, Scores& dp, const typename Block::Step& step) {
    block.differentiate(step, rows, row_sums, s, dp);
    multiply_weights<Element>(dp, Block::address_of(step.slot), Block::lane(), dq);
  });
}

PTX_FN void store_row_sums(const BackwardArguments& a, const Group& g, Position at, bool exists,
                           int lane, const float (&sums)[kNumRowSums]) {
#pragma unroll
  for (int i = 0; i < kNumRowSums; ++i) {
    const float sum = row_total(sums[i]);
    if (exists && lane % 4 == 0)
      ptx::st_global(a.row_sums + workspace_row(a.params.problem, g, at) * kNumRowSums + i,
                     static_cast<double>(sum));
  }
}

template <class Element, class Shape>
PTX_FN void store_queries(const BackwardBlock<Element, Shape>& block, bool has_keys,
                          const typename BackwardBlock<Element, Shape>::RowSums& row_sums,
                          const typename BackwardBlock<Element, Shape>::Sums& dq) {
  using Block = BackwardBlock<Element, Shape>;
  const BackwardArguments& a = block.a;
  const Problem& p = a.params.problem;
  const Group g = block.group();
  const float reference = scales_of(p, g).reference;
#pragma unroll
  for (int m = 0; m < Shape::kRowFragments; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int tile_row = Block::warp_row() + 16 * m + fragment_row(Block::lane(), half);
      const int64_t row = block.first_owned() + tile_row;
      const Position at = position_of(g, row);
      const bool exists = row < g.num_rows;
      block.store_gradient(a.params.dq, a.dq_has_pairs, row_offset(p, g, a.params.dq, at),
                           static_cast<int>(p.head_dim), tile_row, exists,
                           row < rows_in_memory(p, g), half, block.has_cosine() && has_keys,
                           reference, dq[m]);
      if constexpr (Shape::kHasOptions)
        if (a.row_sums) store_row_sums(a, g, at, exists, Block::lane(), row_sums[m][half]);
    }
}

template <class Element, class Shape>
PTX_FN void run_queries_block(const BackwardArguments& a) {
  using Block = BackwardBlock<Element, Shape>;
  const Problem& p = a.params.problem;
  const Place place = place_of(p, block_number(), a.items);
  if (place.sequence >= p.batch) return;
  const Group g = group_of(p, place.sequence, place.head_kv);
  // The last rows of a causal sequence have the most keys: first, so that the end is shared out.
  const int64_t first_row = (a.items - 1 - place.index) * Shape::kOwned;
  if (first_row >= rows_in_memory(p, g)) return;
  const Block block = backward_block<Element, Shape>(a, g, first_row);
  typename Block::Sums dq;
  clear(dq);
  const Span rows = {first_row, min_of(first_row + Shape::kOwned, g.num_rows)};
  const Span keys =
      rows.begin < rows.end ? reachable_keys(g.mask, queries_of(g, rows)) : Span{0, 0};
  const bool has_keys = keys.begin < keys.end;
  typename Block::RowSums row_sums = {};
  if (has_keys) sum_queries(block, keys, row_sums, dq);
  store_queries(block, has_keys, row_sums, dq);
}

template <class Element, class Shape>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kMinBlocks)
    backward_queries_kernel(const __grid_constant__ BackwardArguments a) {
  if constexpr (is_compiled(Shape::kBudget)) run_queries_block<Element, Shape>(a);
}

}  // namespace attnext::cuda::mma
