// What the kernels of backward share: constants of rows found beforehand, the sums they leave
// behind, and p and ds of one tile of scores.
//
// dq is found by a block per tile of queries, dk and dv by a block per tile of keys: seven products
// instead of five, and no sum whose order depends on the machine.
#pragma once

#include "common/gradient.cuh"
#include "simt/block.cuh"

namespace attnext::cuda::simt {

// Workspace, in the order of row_base unless it says otherwise.
template <class A>
struct BackwardSpace {
  A *lse_log2, *lse_rest, *delta;
  double* row_sums;  // [rows, kNumRowSums]; null where not wanted
  A *dq, *dk;        // [rows or keys, head_dim] by the normalised rows (cosine), else null
  double *weight, *score_bias;  // [query tiles, group_size, head_dim]; null where not wanted
  double* bias_keys;            // [sequence, num_heads_q, key]; null where not wanted
};

template <class A>
struct BackwardArguments {
  BackwardParams params;
  Norms<A> norms;
  BackwardSpace<A> space;
  int64_t query_tiles, key_tiles;  // of the longest sequence, padding included
  int64_t slices;
};

// Where the sums of a bias gradient come from.
enum class BiasSum { kNone, kDense, kPerRow, kPerKey };

ATTNEXT_HD BiasSum bias_sum_of(const BackwardParams& params) {
  if (!is_present(params.dbias)) return BiasSum::kNone;
  if (params.dbias.shape[3] == 1) return BiasSum::kPerRow;
  return params.dbias.shape[2] == 1 ? BiasSum::kPerKey : BiasSum::kDense;
}

// Whether some gradient is made of sums over the keys of a row, which are found with dq.
ATTNEXT_HD bool has_row_sums(const BackwardParams& params) {
  return params.dscale || params.dalibi_slopes || params.dsinks ||
         bias_sum_of(params) == BiasSum::kPerRow;
}

// What a block works on: the row or key it begins with, and its slice of the columns.
struct BlockPlace {
  int64_t first, slice;
};

template <class A, class Term>
struct BackwardShared {
  // Read again after the loop, which leaves no registers to keep them in.
  SharedArray<Group> group;
  SharedArray<BlockPlace> place;
  QueryTables<A> queries;
  KeyTables<A> keys;
  SlabRoom<A> room;
  SharedArray<A> rows;  // slabs of the products that accumulate, where the others' lie
  SharedArray<A> tile;
  SharedArray<double> sums;  // [kNumRowSums][rows]
};

template <class A, class Term>
ATTNEXT_HD constexpr BackwardShared<A, Term> carve_backward(uint32_t* at) {
  constexpr int kTile = kTileRows<kManyRows>;
  BackwardShared<A, Term> s{};
  s.group = take_shared<Group>(at, 1);
  s.place = take_shared<BlockPlace>(at, 1);
  s.queries = take_query_tables<A>(at, kTile, {Term::kHasWeight, true});
  s.keys = take_key_tables<A>(at);
  s.tile = take_shared<A>(at, kTileK * kTile);
  uint32_t rows = *at;
  s.rows = take_shared<A>(&rows, kSlab<A> * kQuads<A, Term> * kQuadColumns);
  s.room.first = take_shared<A>(at, kSlab<A> * kTile);
  s.room.second = take_shared<A>(at, kSlab<A> * kTileK);
  s.room.weight = s.tile;  // which is written after the product
  if (rows > *at) *at = rows;
  s.sums = take_shared<double>(at, kNumRowSums * kTile);
  return s;
}

template <class A, class Term>
constexpr uint32_t backward_bytes() {
  uint32_t at = 0;
  carve_backward<A, Term>(&at);
  return at;
}

// The tables of a tile of query rows, with what backward needs of them.
template <class Term, class A>
PTX_FN void store_gradient_rows(const BackwardArguments<A>& a, const Group& g, Span rows,
                                const QueryTables<A>& t) {
  constexpr int kTile = kTileRows<kManyRows>;
  const Problem& p = a.params.problem;
  store_query_rows<Term>(p, g, rows, kTile, a.norms, t);
  for (int i = thread_place().index; i < kTile; i += kThreads) {
    const int64_t row = rows.begin + i;
    const bool exists = row < rows.end;
    store_pointer(t.dout, i, exists ? row_pointer(p, g, a.params.dout, row) : nullptr);
    GradientRow<A> constants = absent_row<A>();
    if (exists) {
      const int64_t at = workspace_row(p, g, position_of(g, row));
      constants = {a.space.lse_log2[at], a.space.lse_rest[at], a.space.delta[at]};
    }
    store(t.lse_log2, i, constants.lse_log2);
    store(t.lse_rest, i, constants.lse_rest);
    store(t.delta, i, constants.delta);
  }
}

template <class A>
PTX_FN GradientRow<A> load_gradient_row(const QueryTables<A>& t, int i) {
  return {load(t.lse_log2, i), load(t.lse_rest, i), load(t.delta, i)};
}

template <class A>
PTX_FN RowSource<A> dout_source(const BackwardArguments<A>& a, const QueryTables<A>& t) {
  return row_source<A>(t.dout, a.params.dout, a.params.problem.head_dim_v);
}

// dp = dout vT of the tables' rows, left in shared.tile.
template <class Term, Queries kQueries, int kRows, class A>
PTX_FN void multiply_values(const BackwardArguments<A>& a, const BackwardShared<A, Term>& shared) {
  const Problem& p = a.params.problem;
  const RowSource<A> dout = dout_source(a, shared.queries),
                     v = row_source<A>(shared.keys.v, p.v, p.head_dim_v);
  A dp[kRows][kQuad];
  if constexpr (kQueries == Queries::kFirst)
    multiply<DotTerm, kQueries>(dout, v, dout, p.head_dim_v, shared.room, dp);
  else
    multiply<DotTerm, kQueries>(v, dout, dout, p.head_dim_v, shared.room, dp);
  store_tile(dp, shared.tile);
}

// Raw products of the tables' rows: dp, and s = term(q, k). Registers do not hold both beside what
// is accumulated, nor s beside the product dp: that comes first, unless Term has a weight, whose
// slab lies in the tile.
template <class Term, Queries kQueries, int kRows, class A>
PTX_FN void multiply_both(const BackwardArguments<A>& a, const BackwardShared<A, Term>& shared,
                          A (&s)[kRows][kQuad]) {
  if constexpr (!Term::kHasWeight) multiply_values<Term, kQueries, kRows>(a, shared);
  multiply_keys<Term, kQueries>(a.params.problem, a.norms, shared.queries, shared.keys, shared.room,
                                s);
  if constexpr (Term::kHasWeight) multiply_values<Term, kQueries, kRows>(a, shared);
}

// Rows a block's columns belong to, kept in registers: what a slope that is not bilinear needs.
template <class Term, int kRows, int kColumns, class A>
PTX_FN void load_own_rows(const RowSource<A>& source, Columns columns, A (&own)[kRows][kColumns]) {
  if constexpr (!Term::kIsBilinear) {
    static_assert(kColumns == kQuad);
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      A x[kQuad];
      read_row_quad(source, thread_place().ty * kRows + i,
                    columns.begin + thread_place().tx * kQuad, x);
#pragma unroll
      for (int c = 0; c < kQuad; ++c) own[i][c] = x[c];
    }
  }
}

// One row of an output, and how its elements lie.
struct OutputRow {
  char* data;
  DType dtype;
  int64_t stride;
};

template <int kColumns, class A>
PTX_FN void store_columns(const OutputRow& row, Columns columns, int64_t count,
                          const A (&values)[kColumns]) {
#pragma unroll
  for (int quad = 0; quad < kColumns / kQuad; ++quad) {
    A x[kQuad];
#pragma unroll
    for (int j = 0; j < kQuad; ++j) x[j] = values[quad * kQuad + j];
    write_quad<A>(row.data, row.dtype, row.stride, columns.begin + column_of(quad * kQuad), count,
                  x);
  }
}

}  // namespace attnext::cuda::simt
