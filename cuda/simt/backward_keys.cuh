// Backward, dk and dv: a block owns a tile of keys and goes over the query rows, of all heads of
// the group, that see them. Keys lie along `ty`, so that the scores are transposed.
#pragma once

#include "simt/backward.cuh"

namespace attnext::cuda::simt {

template <int kRows, int kColumns, class A>
struct KeySums {
  A dk[kRows][kColumns], dv[kRows][kColumns];
};

// s: raw products in, ds by them out; shared.tile: dp in, the weights that met the values out.
template <class Term, int kRows, class A>
PTX_FN void differentiate_keys(const BackwardArguments<A>& a, const BackwardShared<A, Term>& shared,
                               const KeyTile& tile, A (&s)[kRows][kQuad]) {
  static_assert(kRows == kQuad);  // four consecutive keys a thread
  const Problem& p = a.params.problem;
  const Group g = load_struct(shared.group, 0);
  const ThreadPlace place = thread_place();
#pragma unroll 1
  for (int j = 0; j < kQuad; ++j, turn_columns(s)) {
    const int index = place.tx * kQuad + j;
    A scores[kQuad], dp[kQuad];
    load_tile_column<kRows>(shared.tile, j, dp);
#pragma unroll
    for (int i = 0; i < kQuad; ++i) scores[i] = s[i][0];
    ScoreTrace<A> trace;
    const ScoreGradient<A> gradient = differentiate_scores(
        p, g, load_struct(shared.queries.scores, index), load_gradient_row(shared.queries, index),
        tile, tile.keys.begin + place.ty * kQuad, dp, scores, &trace);
    store_tile_column(shared.tile, j, gradient.dropped_p);
#pragma unroll
    for (int i = 0; i < kQuad; ++i) s[i][0] = gradient.ds_raw[i];
  }
}

// dk += dsT q, ds in shared.tile.
template <class Term, int kRows, int kColumns, class A>
PTX_FN void accumulate_key_gradient(const BackwardArguments<A>& a,
                                    const BackwardShared<A, Term>& shared, int num_rows,
                                    Columns columns, A (&dk)[kRows][kColumns]) {
  const Problem& p = a.params.problem;
  A own[kRows][kColumns];
  load_own_rows<Term>(key_source(p, a.norms, shared.keys), columns, own);
  const RowSource<A> q = query_source<Term>(p, a.norms, shared.queries);
  if constexpr (Term::kHasWeight) {
    const RowSource<A> weights = vector_source<A>(shared.queries.weight, p.head_dim);
    // Beside the slab of q lies one of the rows' weights; for_slabs' barrier serves both.
    static_assert(kColumns == kQuad);
    [[maybe_unused]] constexpr int kAtOnce = kRowsAtOnce<A, kRows>;
    for (int first = 0; first < num_rows; first += kSlab<A>) {
      const int rows = num_rows - first < kSlab<A> ? num_rows - first : kSlab<A>;
      load_slab<kQuadColumns>(weights, first, rows, columns.begin, columns.quads,
                              shared.room.second);
      load_slab<kQuadColumns>(q, first, rows, columns.begin, columns.quads, shared.room.first);
      ptx::block_sync();
#pragma unroll 1
      for (int row = 0; row < rows; ++row) {
        A ds[kRows], x[kQuad], w[kQuad];
        load_values<kRows>(shared.tile, tile_index<kRows>(first + row, thread_place().ty * kRows),
                           ds);
        load_values<kQuad>(shared.room.first, row * kQuadColumns + thread_place().tx * kQuad, x);
        load_values<kQuad>(shared.room.second, row * kQuadColumns + thread_place().tx * kQuad, w);
#pragma unroll kAtOnce
        for (int i = 0; i < kRows; ++i, turn(ds), turn_rows(own), turn_rows(dk)) {
#pragma unroll
          for (int c = 0; c < kQuad; ++c)
            dk[0][c] += ds[0] * Term::slope(ThreadMath<A>::tanh_slope(x[c] + own[0][c]), w[c]);
        }
      }
      ptx::block_sync();
    }
  } else {
    accumulate(shared.tile, q, num_rows, columns, shared.rows, dk, [&](int i, int c, A query) {
      return Term::slope_k(query, Term::kIsBilinear ? A(0) : own[i][c]);
    });
  }
}

// One tile of query rows.
template <class Term, int kRows, int kColumns, class A>
PTX_FN void add_query_tile(const BackwardArguments<A>& a, const BackwardShared<A, Term>& shared,
                           const KeyTile& tile, int num_rows, Columns columns, Columns columns_v,
                           KeySums<kRows, kColumns, A>& sums) {
  A s[kRows][kQuad];
  multiply_both<Term, Queries::kSecond>(a, shared, s);
  differentiate_keys(a, shared, tile, s);
  accumulate(shared.tile, dout_source(a, shared.queries), num_rows, columns_v, shared.rows, sums.dv,
             [](int, int, A dout) { return dout; });  // dv += pT dout
  store_tile(s, shared.tile);
  accumulate_key_gradient(a, shared, num_rows, columns, sums.dk);
}

// The rows that see keys of the tile, from the beginning of a tile of rows on.
template <class Term, int kRows, int kColumns, class A>
PTX_FN void differentiate_key_tile(const BackwardArguments<A>& a, Span keys, Columns columns,
                                   Columns columns_v, const BackwardShared<A, Term>& shared,
                                   KeySums<kRows, kColumns, A>& sums) {
  constexpr int kTile = kTileRows<kManyRows>;
  const Problem& p = a.params.problem;
  const Span queries = visible_queries(load_struct(shared.group, 0).mask, keys);
  for (int64_t begin = queries.begin * p.group_size / kTile * kTile;
       begin < queries.end * p.group_size; begin += kTile) {
    const Group g = load_struct(shared.group, 0);
    const Span rows = {begin, min_of(begin + kTile, g.num_rows)};
    const KeyTile tile =
        key_tile(g.mask, queries_of(g, rows), {0, g.mask.seqlen_k}, keys.begin, kTileK);
    if (tile.keys.begin == tile.keys.end) continue;
    store_gradient_rows<Term>(a, g, rows, shared.queries);
    ptx::block_sync();
    add_query_tile(a, shared, tile, static_cast<int>(rows.end - rows.begin), columns, columns_v,
                   sums);
  }
}

template <class A>
PTX_FN OutputRow dk_row(const BackwardArguments<A>& a, const Group& g, int64_t key) {
  const BackwardParams& params = a.params;
  const Problem& p = params.problem;
  if (a.space.dk && key < g.mask.seqlen_k)
    return {reinterpret_cast<char*>(a.space.dk + (key_base(p, g) + key) * p.head_dim),
            kAccumulatorDType<A>, 1};
  return {key_pointer(p, g, params.dk, key), dtype_of(params.dk), params.dk.strides[3]};
}

template <class A, class Term>
PTX_FN void backward_keys_item(const BackwardArguments<A>& a, int64_t item) {
  constexpr int kRows = kManyRows, kColumns = kQuads<A, Term> * kQuad;
  const Problem& p = a.params.problem;
  uint32_t at = ptx::dyn_smem();
  const BackwardShared<A, Term> shared = carve_backward<A, Term>(&at);
  const int64_t slice = item / a.key_tiles % a.slices, head = item / a.key_tiles / a.slices;
  Columns columns = columns_of<kQuads<A, Term>>(slice, p.head_dim),
          columns_v = columns_of<kQuads<A, Term>>(slice, p.head_dim_v);
  Group g = group_of(p, head / p.num_heads_kv, head % p.num_heads_kv);
  BlockPlace here = {item % a.key_tiles * kTileK, slice};
  if (here.first >= keys_in_memory(p, g)) return;
  const Span keys = {here.first, min_of(here.first + kTileK, g.mask.seqlen_k)};
  KeySums<kRows, kColumns, A> sums = {};
  if (keys.begin < keys.end) {
    if (thread_place().index == 0) {
      store_struct(shared.group, 0, g);
      store_struct(shared.place, 0, here);
    }
    store_key_rows(p, g, keys, a.norms, shared.keys);
    ptx::block_sync();
    differentiate_key_tile(a, keys, columns, columns_v, shared, sums);
    g = load_struct(shared.group, 0);
    here = load_struct(shared.place, 0);
    columns = columns_of<kQuads<A, Term>>(here.slice, p.head_dim);
    columns_v = columns_of<kQuads<A, Term>>(here.slice, p.head_dim_v);
  }
  const TensorView& dv = a.params.dv;
#pragma unroll 1
  for (int i = 0; i < kRows; ++i, turn_rows(sums.dk), turn_rows(sums.dv)) {
    const int64_t key = here.first + thread_place().ty * kRows + i;
    if (key >= keys_in_memory(p, g)) continue;
    store_columns(dk_row(a, g, key), columns, p.head_dim, sums.dk[0]);
    store_columns({key_pointer(p, g, dv, key), dtype_of(dv), dv.strides[3]}, columns_v,
                  p.head_dim_v, sums.dv[0]);
  }
}

template <class A, class Term>
__global__ void __launch_bounds__(kThreads, 1)
    backward_keys_kernel(const __grid_constant__ BackwardArguments<A> a) {
  const Problem& p = a.params.problem;
  for_blocks(p.batch * p.num_heads_kv * a.slices * a.key_tiles,
             [&](int64_t item) { backward_keys_item<A, Term>(a, item); });
}

}  // namespace attnext::cuda::simt
