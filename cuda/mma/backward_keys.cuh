// dk and dv: one block a tile of keys, over all rows of the group that see them, so that the heads
// of a group are added up in registers. Four products: s, dp, dv, dk; scores are transposed, keys
// by rows, so that weights are the left operand of dv and dk as they come.
#pragma once

#include "mma/backward.cuh"

namespace attnext::cuda::mma {

template <class Element, class Shape, KeyGradients kWanted>
PTX_FN void sum_keys(const BackwardBlock<Element, Shape>& block, Span queries,
                     typename BackwardBlock<Element, Shape>::Sums& dk,
                     typename BackwardBlock<Element, Shape>::Sums& dv) {
  using Block = BackwardBlock<Element, Shape>;
  using Scores = typename Block::Scores;
  constexpr bool kWantsDk = kWanted != KeyGradients::kValues;
  const GradientRow nobody[Shape::kRowFragments][2] = {};
  typename Block::RowSums nothing;
  block.template walk<kWantsDk>(
      queries, [&](Scores& s, Scores& dp, const typename Block::Step& step) {
        block.differentiate(step, nobody, nothing, s, dp);
        const uint32_t q = Block::address_of(step.slot), dout = q + Block::Memory::kWalkedBytes;
        if constexpr (kWanted != KeyGradients::kKeys)
          multiply_weights<Element>(s, dout, Block::lane(), dv);
        if constexpr (kWantsDk) multiply_weights<Element>(dp, q, Block::lane(), dk);
      });
}

template <class Element, class Shape, KeyGradients kWanted>
PTX_FN void store_keys(const BackwardBlock<Element, Shape>& block, bool has_queries,
                       const typename BackwardBlock<Element, Shape>::Sums& dk,
                       const typename BackwardBlock<Element, Shape>::Sums& dv) {
  using Block = BackwardBlock<Element, Shape>;
  const BackwardArguments& a = block.a;
  const Problem& p = a.params.problem;
  const Group g = block.group();
  const float reference = scales_of(p, g).reference;
#pragma unroll
  for (int m = 0; m < Shape::kRowFragments; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = Block::warp_row() + 16 * m + fragment_row(Block::lane(), half);
      const int64_t key = block.first_owned() + row;
      const bool exists = key < g.mask.seqlen_k, is_stored = key < keys_in_memory(p, g);
      if constexpr (kWanted != KeyGradients::kValues)
        block.store_gradient(a.params.dk, a.dk_has_pairs, key_offset(p, g, a.params.dk, key),
                             static_cast<int>(p.head_dim), row, exists, is_stored, half,
                             block.has_cosine() && has_queries, reference, dk[m]);
      if constexpr (kWanted != KeyGradients::kKeys)
        block.store_gradient(a.params.dv, a.dv_has_pairs, key_offset(p, g, a.params.dv, key),
                             static_cast<int>(p.head_dim_v), row, exists, is_stored, half, false, 1,
                             dv[m]);
    }
}

template <class Element, class Shape, KeyGradients kWanted>
PTX_FN void run_keys_block(const BackwardArguments& a) {
  using Block = BackwardBlock<Element, Shape>;
  const Problem& p = a.params.problem;
  const Place place = place_of(p, block_number(), a.items);
  if (place.sequence >= p.batch) return;
  const Group g = group_of(p, place.sequence, place.head_kv);
  const int64_t begin = place.index * Shape::kOwned;
  if (begin >= keys_in_memory(p, g)) return;
  const Block block = backward_block<Element, Shape>(a, g, begin);
  typename Block::Sums dk, dv;
  clear(dk);
  clear(dv);
  const Span keys = {begin, min_of(begin + Shape::kOwned, g.mask.seqlen_k)};
  const Span queries = keys.begin < keys.end ? visible_queries(g.mask, keys) : Span{0, 0};
  const bool has_queries = queries.begin < queries.end;
  if (has_queries) sum_keys<Element, Shape, kWanted>(block, queries, dk, dv);
  store_keys<Element, Shape, kWanted>(block, has_queries, dk, dv);
}

template <class Element, class Shape, KeyGradients kWanted>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kMinBlocks)
    backward_keys_kernel(const __grid_constant__ BackwardArguments a) {
  if constexpr (is_compiled(Shape::kBudget)) run_keys_block<Element, Shape, kWanted>(a);
}

}  // namespace attnext::cuda::mma
