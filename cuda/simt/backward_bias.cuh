// Backward, the gradient of a bias that differs by key. Scores are found once more: a block owns a
// tile of the gradient and goes over all that share it, so that the sum has one order and no
// memory. For a bias shared by all queries, a block sums a tile of keys over the queries of one
// head.
#pragma once

#include "simt/backward.cuh"
#include "simt/forward.cuh"

namespace attnext::cuda::simt {

// total += ds by the final scores of one tile, which a head's rows and the keys of `tile` make.
template <class Term, int kRows, class A>
PTX_FN void add_score_gradients(const BackwardArguments<A>& a, const Group& g, Span rows,
                                const KeyTile& tile, const BackwardShared<A, Term>& shared,
                                A (&total)[kRows][kQuad]) {
  const Problem& p = a.params.problem;
  if (thread_place().index == 0) store_struct(shared.group, 0, g);
  store_gradient_rows<Term>(a, g, rows, shared.queries);
  store_key_rows(p, g, tile.keys, a.norms, shared.keys);
  ptx::block_sync();
  A s[kRows][kQuad];
  multiply_both<Term, Queries::kFirst>(a, shared, s);
  const Group again = load_struct(shared.group, 0);
#pragma unroll 1
  for (int i = 0; i < kRows; ++i, turn_rows(s), turn_rows(total)) {
    const int index = thread_place().ty * kRows + i;
    A dp[kQuad];
    load_tile_row<kRows>(shared.tile, i, dp);
    ScoreTrace<A> trace;
    const ScoreGradient<A> gradient =
        differentiate_scores(p, again, load_struct(shared.queries.scores, index),
                             load_gradient_row(shared.queries, index), tile,
                             tile.keys.begin + thread_place().tx * kQuad, dp, s[0], &trace);
#pragma unroll
    for (int j = 0; j < kQuad; ++j)
      if (index < rows.end - rows.begin) total[0][j] += gradient.ds[j];
  }
  ptx::block_sync();
}

// The tile of `rows` (from it on, a tile's worth) and `keys` of one sequence and head, if it sees
// anything.
template <class Term, int kRows, class A>
PTX_FN void add_head(const BackwardArguments<A>& a, int64_t sequence, int64_t head, int64_t row,
                     int64_t key, const BackwardShared<A, Term>& shared, A (&total)[kRows][kQuad]) {
  const Group g = head_of_group(a.params.problem, sequence, head);
  const Span rows = {row, min_of(row + kTileRows<kRows>, g.num_rows)};
  if (rows.begin >= rows.end) return;
  const KeyTile tile = key_tile(g.mask, queries_of(g, rows), {0, g.mask.seqlen_k}, key, kTileK);
  if (tile.keys.begin == tile.keys.end) return;
  add_score_gradients(a, g, rows, tile, shared, total);
}

// One tile of dbias [batch or 1, num_heads_q or 1, seqlen_q, seqlen_k].
template <class A, class Term>
PTX_FN void dense_bias_item(const BackwardArguments<A>& a, int64_t item) {
  constexpr int kRows = kManyRows;
  const Problem& p = a.params.problem;
  const TensorView& dbias = a.params.dbias;
  uint32_t at = ptx::dyn_smem();
  const BackwardShared<A, Term> shared = carve_backward<A, Term>(&at);
  const int64_t key = item % a.key_tiles * kTileK;
  const int64_t row = item / a.key_tiles % a.query_tiles * kTileRows<kRows>;
  const int64_t index = item / a.key_tiles / a.query_tiles;
  const int64_t head = index % dbias.shape[1], sequence = index / dbias.shape[1];
  A total[kRows][kQuad] = {};
  for (int64_t b = sequence; b < p.batch; b += dbias.shape[0])
    for (int64_t h = head; h < p.num_heads_q; h += dbias.shape[1])
      add_head(a, b, h, row, key, shared, total);
  const ThreadPlace place = thread_place();
#pragma unroll 1
  for (int i = 0; i < kRows; ++i, turn_rows(total)) {
    const int64_t query = row + place.ty * kRows + i;
    if (query >= dbias.shape[2]) continue;
    char* out = element_pointer(
        dbias, sequence * dbias.strides[0] + head * dbias.strides[1] + query * dbias.strides[2]);
    write_quad<A>(out, dtype_of(dbias), dbias.strides[3], key + place.tx * kQuad, dbias.shape[3],
                  total[0]);
  }
}

// The sums of a tile of keys over all queries of one (sequence, head).
template <class A, class Term>
PTX_FN void key_bias_item(const BackwardArguments<A>& a, int64_t item) {
  constexpr int kRows = kManyRows, kTile = kTileRows<kRows>;
  const Problem& p = a.params.problem;
  uint32_t at = ptx::dyn_smem();
  const BackwardShared<A, Term> shared = carve_backward<A, Term>(&at);
  const ThreadPlace place = thread_place();
  const int64_t begin = item % a.key_tiles * kTileK, index = item / a.key_tiles;
  const int64_t sequence = index / p.num_heads_q, head = index % p.num_heads_q;
  const Mask mask = p.sequences[sequence].mask;
  const Span keys = {begin, min_of(begin + kTileK, mask.seqlen_k)};
  if (keys.begin >= keys.end) return;
  double sum[kQuad] = {};
  const Span queries = visible_queries(mask, keys);
  for (int64_t row = queries.begin / kTile * kTile; row < queries.end; row += kTile) {
    A total[kRows][kQuad] = {};
    add_head(a, sequence, head, row, begin, shared, total);
#pragma unroll
    for (int j = 0; j < kQuad; ++j)
#pragma unroll
      for (int i = 0; i < kRows; ++i) sum[j] += static_cast<double>(total[i][j]);
  }
  // The 16 threads of a key lie in different warps.
  const SharedArray<double> parts = {shared.tile.address};
  store_values<kQuad>(parts, place.ty * kTileK + place.tx * kQuad, sum);
  ptx::block_sync();
  if (place.index >= keys.end - keys.begin) return;
  double whole = 0;
  for (int ty = 0; ty < kSide; ++ty) whole += load(parts, ty * kTileK + place.index);
  a.space.bias_keys[(sequence * p.num_heads_q + head) * p.seqlen_k + begin + place.index] = whole;
}

template <class A, class Term>
__global__ void __launch_bounds__(kThreads, 1)
    backward_bias_kernel(const __grid_constant__ BackwardArguments<A> a) {
  const Problem& p = a.params.problem;
  const TensorView& dbias = a.params.dbias;
  if (bias_sum_of(a.params) == BiasSum::kDense)
    for_blocks(dbias.shape[0] * dbias.shape[1] * a.query_tiles * a.key_tiles,
               [&](int64_t item) { dense_bias_item<A, Term>(a, item); });
  else
    for_blocks(p.batch * p.num_heads_q * a.key_tiles,
               [&](int64_t item) { key_bias_item<A, Term>(a, item); });
}

}  // namespace attnext::cuda::simt
