// Backward, dq: a block owns a tile of query rows and goes over the keys they see. Here every row
// meets all of its keys, so what is summed over them is found here too.
#pragma once

#include "simt/backward.cuh"
#include "simt/forward.cuh"

namespace attnext::cuda::simt {

// sums[..][row] += what the thread's keys add, by the first thread of each row.
template <int kRows, class A>
PTX_FN void add_row_sums(const Problem& p, const Mask& mask, const ScoreRow<A>& row, int64_t key,
                         const ScoreGradient<A>& gradient, const ScoreTrace<A>& trace, int i,
                         SharedArray<double> sums) {
  A parts[kNumRowSums];
  sum_row(p, mask, row, key, gradient, trace, parts);
#pragma unroll
  for (int part = 0; part < kNumRowSums; ++part) {
    const A sum = row_sum_of(parts[part]);
    const int at = part * kTileRows<kRows> + i;
    if (thread_place().tx == 0) store(sums, at, load(sums, at) + static_cast<double>(sum));
  }
}

// s: raw products in, ds by them out; dp in shared.tile.
template <class Term, int kRows, class A>
PTX_FN void differentiate_rows(const BackwardArguments<A>& a, const BackwardShared<A, Term>& shared,
                               const KeyTile& tile, A (&s)[kRows][kQuad]) {
  const Problem& p = a.params.problem;
  const Group g = load_struct(shared.group, 0);
  const ThreadPlace place = thread_place();
  const int64_t key = tile.keys.begin + place.tx * kQuad;
#pragma unroll 1
  for (int i = 0; i < kRows; ++i, turn_rows(s)) {
    const int index = place.ty * kRows + i;
    A dp[kQuad];
    load_tile_row<kRows>(shared.tile, i, dp);
    const ScoreRow<A> row = load_struct(shared.queries.scores, index);
    ScoreTrace<A> trace;
    const ScoreGradient<A> gradient = differentiate_scores(
        p, g, row, load_gradient_row(shared.queries, index), tile, key, dp, s[0], &trace);
    if (a.space.row_sums)
      add_row_sums<kRows>(p, g.mask, row, key, gradient, trace, index, shared.sums);
#pragma unroll
    for (int j = 0; j < kQuad; ++j) s[0][j] = gradient.ds_raw[j];
  }
}

// What a block accumulates. `dweight`: of the additive score.
template <int kRows, int kColumns, class A>
struct QuerySums {
  A dq[kRows][kColumns];
  A dweight[kRows][kColumns];
};

template <class Term, int kRows, int kColumns, class A>
PTX_FN void accumulate_query_gradient(const BackwardArguments<A>& a,
                                      const BackwardShared<A, Term>& shared, int num_keys,
                                      Columns columns, QuerySums<kRows, kColumns, A>& sums) {
  const Problem& p = a.params.problem;
  const RowSource<A> k = key_source(p, a.norms, shared.keys);
  A q[kRows][kColumns];
  load_own_rows<Term>(query_source<Term>(p, a.norms, shared.queries), columns, q);
  if constexpr (Term::kHasWeight) {
    for_slabs<kColumns>(k, num_keys, columns, shared.rows, [&](int first, int rows) {
      static_assert(kColumns == kQuad);
      [[maybe_unused]] constexpr int kAtOnce = kRowsAtOnce<A, kRows>;
#pragma unroll 1
      for (int row = 0; row < rows; ++row) {
        A ds[kRows], x[kQuad];
        load_values<kRows>(shared.tile, tile_index<kRows>(first + row, thread_place().ty * kRows),
                           ds);
        load_values<kQuad>(shared.rows, row * kQuadColumns + thread_place().tx * kQuad, x);
#pragma unroll kAtOnce
        for (int i = 0; i < kRows;
             ++i, turn(ds), turn_rows(q), turn_rows(sums.dq), turn_rows(sums.dweight)) {
#pragma unroll
          for (int c = 0; c < kQuad; ++c) {
            const Tanh<A> t = tanh_with_slope(q[0][c] + x[c]);
            sums.dq[0][c] += ds[0] * t.slope;
            sums.dweight[0][c] += ds[0] * t.value;
          }
        }
      }
    });
  } else {
    accumulate(shared.tile, k, num_keys, columns, shared.rows, sums.dq, [&](int i, int c, A key) {
      return Term::slope_q(Term::kIsBilinear ? A(0) : q[i][c], key);
    });
  }
}

// A weight is a row's own: what its keys add up to is multiplied by it once.
template <class Term, int kRows, int kColumns, class A>
PTX_FN void weigh_query_gradient(const Problem& p, const QueryTables<A>& queries, Columns columns,
                                 A (&dq)[kRows][kColumns]) {
  if constexpr (Term::kHasWeight) {
    A weight[kRows][kColumns];
    load_own_rows<Term>(vector_source<A>(queries.weight, p.head_dim), columns, weight);
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
#pragma unroll
      for (int c = 0; c < kColumns; ++c) dq[i][c] = Term::slope(dq[i][c], weight[i][c]);
    }
  }
}

// dq += ds k over the keys of `range`.
template <class Term, int kRows, int kColumns, class A>
PTX_FN void differentiate_queries(const BackwardArguments<A>& a, Span queries, Span range,
                                  Columns columns, const BackwardShared<A, Term>& shared,
                                  QuerySums<kRows, kColumns, A>& sums) {
  const Problem& p = a.params.problem;
  for (int64_t begin = range.begin; begin < range.end; begin += kTileK) {
    const Group g = load_struct(shared.group, 0);
    const KeyTile tile = key_tile(g.mask, queries, range, begin, kTileK);
    if (tile.keys.begin == tile.keys.end) continue;
    store_key_rows(p, g, tile.keys, a.norms, shared.keys);
    ptx::block_sync();
    A s[kRows][kQuad];
    multiply_both<Term, Queries::kFirst>(a, shared, s);
    differentiate_rows(a, shared, tile, s);
    store_tile(s, shared.tile);
    accumulate_query_gradient(a, shared, static_cast<int>(tile.keys.end - tile.keys.begin), columns,
                              sums);
  }
  weigh_query_gradient<Term>(p, shared.queries, columns, sums.dq);
}

// Sums over the rows of each head of the tile, to a place of their own. Leaves a barrier to others.
template <class Term, int kRows, int kColumns, class A>
PTX_FN void store_column_sums(const Problem& p, const Group& g, Span rows, Columns columns,
                              const A (&x)[kRows][kColumns], SharedArray<A> tile, double* out) {
  const ThreadPlace place = thread_place();
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    A row[kQuad];
#pragma unroll
    for (int c = 0; c < kQuad; ++c) row[c] = x[i][c];
    store_values<kQuad>(tile, (place.ty * kRows + i) * kQuadColumns + place.tx * kQuad, row);
  }
  ptx::block_sync();
  const int64_t width = min_of(kQuadColumns, p.head_dim - columns.begin);
  const int num_rows = static_cast<int>(rows.end - rows.begin);
  for (int64_t i = place.index; i < g.num_heads * width; i += kThreads) {
    const int64_t head = i / width, column = i % width;
    double sum = 0;
    for (int row = 0; row < num_rows; ++row)
      if ((rows.begin + row) % g.num_heads == head)
        sum += static_cast<double>(load(tile, row * kQuadColumns + static_cast<int>(column)));
    out[head * p.head_dim + columns.begin + column] = sum;
  }
  ptx::block_sync();
}

// What the rows' sums over keys, and the heads' sums over rows, come to.
template <class Term, int kRows, int kColumns, class A>
PTX_FN void store_query_sums(const BackwardArguments<A>& a, const Group& g, BlockPlace here,
                             const BackwardShared<A, Term>& shared,
                             const QuerySums<kRows, kColumns, A>& sums) {
  constexpr int kTile = kTileRows<kRows>;
  const Problem& p = a.params.problem;
  const Span rows = {here.first, min_of(here.first + kTile, g.num_rows)};
  const Columns columns = columns_of<kQuads<A, Term>>(here.slice, p.head_dim);
  if (a.space.row_sums && columns.begin == 0) {
    ptx::block_sync();
    for (int i = thread_place().index; i < (rows.end - rows.begin) * kNumRowSums; i += kThreads)
      a.space.row_sums[(row_base(p, g) + rows.begin) * kNumRowSums + i] =
          load(shared.sums, i % kNumRowSums * kTile + i / kNumRowSums);
  }
  if constexpr (Term::kHasWeight) {
    const int64_t tile =
        (g.sequence * p.num_heads_kv + g.head_kv) * a.query_tiles + here.first / kTile;
    const int64_t at = tile * p.group_size * p.head_dim;
    if (a.space.weight)
      store_column_sums<Term>(p, g, rows, columns, sums.dweight, shared.tile, a.space.weight + at);
    if (a.space.score_bias)
      store_column_sums<Term>(p, g, rows, columns, sums.dq, shared.tile, a.space.score_bias + at);
  }
}

template <class A>
PTX_FN OutputRow dq_row(const BackwardArguments<A>& a, const Group& g, int64_t row) {
  const BackwardParams& params = a.params;
  const Problem& p = params.problem;
  if (a.space.dq && row < g.num_rows)
    return {reinterpret_cast<char*>(a.space.dq + (row_base(p, g) + row) * p.head_dim),
            kAccumulatorDType<A>, 1};
  return {row_pointer(p, g, params.dq, row), dtype_of(params.dq), params.dq.strides[3]};
}

template <class A, class Term>
PTX_FN void backward_queries_item(const BackwardArguments<A>& a, int64_t item) {
  constexpr int kRows = kManyRows, kTile = kTileRows<kRows>, kColumns = kQuads<A, Term> * kQuad;
  const Problem& p = a.params.problem;
  uint32_t at = ptx::dyn_smem();
  const BackwardShared<A, Term> shared = carve_backward<A, Term>(&at);
  const int64_t slice = item / a.query_tiles % a.slices, head = item / a.query_tiles / a.slices;
  Group g = group_of(p, head / p.num_heads_kv, head % p.num_heads_kv);
  const int64_t block = divide_up(rows_in_memory(p, g), kTile) - 1 - item % a.query_tiles;
  if (block < 0) return;
  BlockPlace here = {block * kTile, slice};
  QuerySums<kRows, kColumns, A> sums = {};
  if (here.first < g.num_rows) {
    if (thread_place().index == 0) {
      store_struct(shared.group, 0, g);
      store_struct(shared.place, 0, here);
    }
    const Span rows = {here.first, min_of(here.first + kTile, g.num_rows)};
    store_gradient_rows<Term>(a, g, rows, shared.queries);
    for (int i = thread_place().index; i < kNumRowSums * kTile; i += kThreads)
      store(shared.sums, i, 0.0);
    const Span queries = queries_of(g, rows);
    const Span range = reachable_tiles(g.mask, queries, {0, g.mask.seqlen_k});
    ptx::block_sync();
    differentiate_queries(a, queries, range, columns_of<kQuads<A, Term>>(slice, p.head_dim), shared,
                          sums);
    g = load_struct(shared.group, 0);
    here = load_struct(shared.place, 0);
    store_query_sums(a, g, here, shared, sums);
  }
  const Columns columns = columns_of<kQuads<A, Term>>(here.slice, p.head_dim);
#pragma unroll 1
  for (int i = 0; i < kRows; ++i, turn_rows(sums.dq)) {
    const int64_t row = here.first + thread_place().ty * kRows + i;
    if (row < rows_in_memory(p, g))
      store_columns(dq_row(a, g, row), columns, p.head_dim, sums.dq[0]);
  }
}

template <class A, class Term>
__global__ void __launch_bounds__(kThreads, 1)
    backward_queries_kernel(const __grid_constant__ BackwardArguments<A> a) {
  const Problem& p = a.params.problem;
  for_blocks(p.batch * p.num_heads_kv * a.slices * a.query_tiles,
             [&](int64_t item) { backward_queries_item<A, Term>(a, item); });
}

}  // namespace attnext::cuda::simt
