// What a block keeps about the rows and keys of its tiles: where they lie in memory, and all that
// their scores depend on.
#pragma once

#include "simt/matmul.cuh"

namespace attnext::cuda::simt {

// |x| of the rows of q and k for the cosine score, in the order of row_base and key_base; 1 for
// rows of zeros, which stay zeros.
template <class A>
struct Norms {
  const A *q, *k;
};

// Tables of `rows` query rows.
template <class A>
struct QueryTables {
  RowTable q, weight, score_bias, dout;
  SharedArray<ScoreRow<A>> scores;
  SharedArray<A> norms;
  SharedArray<A> lse_log2, lse_rest, delta;
};

struct Additions {
  bool has_weight, has_gradient;
};

template <class A>
ATTNEXT_HD constexpr QueryTables<A> take_query_tables(uint32_t* at, int rows, Additions more) {
  QueryTables<A> t{};
  t.q = take_shared<uint64_t>(at, rows);
  t.weight = take_shared<uint64_t>(at, more.has_weight ? rows : 0);
  t.score_bias = take_shared<uint64_t>(at, more.has_weight ? rows : 0);
  t.dout = take_shared<uint64_t>(at, more.has_gradient ? rows : 0);
  t.scores = take_shared<ScoreRow<A>>(at, rows);
  t.norms = take_shared<A>(at, rows);
  t.lse_log2 = take_shared<A>(at, more.has_gradient ? rows : 0);
  t.lse_rest = take_shared<A>(at, more.has_gradient ? rows : 0);
  t.delta = take_shared<A>(at, more.has_gradient ? rows : 0);
  return t;
}

// Rows from rows.begin on, null pointers from rows.end on. `rows` is not empty.
template <class Term, class A>
PTX_FN void store_query_rows(const Problem& p, const Group& g, Span rows, int count,
                             const Norms<A>& norms, const QueryTables<A>& t) {
  for (int i = thread_place().index; i < count; i += kThreads) {
    const int64_t row = rows.begin + i;
    const bool exists = row < rows.end;
    const ScoreRow<A> scores = score_row<A>(p, g, min_of(row, rows.end - 1));
    store_struct(t.scores, i, scores);
    store_pointer(t.q, i, exists ? row_pointer(p, g, p.q, row) : nullptr);
    if (norms.q)
      store(t.norms, i, exists ? norms.q[workspace_row(p, g, position_of(g, row))] : A(1));
    if constexpr (Term::kHasWeight) {
      const int64_t vector = scores.head * p.head_dim;
      store_pointer(t.weight, i, exists ? p.weight + vector : nullptr);
      store_pointer(t.score_bias, i, exists && p.score_bias ? p.score_bias + vector : nullptr);
    }
  }
}

// Tables of the keys of a tile.
template <class A>
struct KeyTables {
  RowTable k, v;
  SharedArray<A> norms;
};

template <class A>
ATTNEXT_HD constexpr KeyTables<A> take_key_tables(uint32_t* at) {
  KeyTables<A> t{};
  t.k = take_shared<uint64_t>(at, kTileK);
  t.v = take_shared<uint64_t>(at, kTileK);
  t.norms = take_shared<A>(at, kTileK);
  return t;
}

// Half a block per tensor: a page lookup each.
template <class A>
PTX_FN void store_key_rows(const Problem& p, const Group& g, Span keys, const Norms<A>& norms,
                           const KeyTables<A>& t) {
  const int i = thread_place().index % kTileK, part = thread_place().index / kTileK;
  const int64_t key = keys.begin + i;
  const bool exists = key < keys.end;
  if (part == 0) store_pointer(t.k, i, exists ? key_pointer(p, g, p.k, key) : nullptr);
  if (part == 1 && is_present(p.v))
    store_pointer(t.v, i, exists ? key_pointer(p, g, p.v, key) : nullptr);
  if (part == 2 && norms.k) store(t.norms, i, exists ? norms.k[key_base(p, g) + key] : A(1));
}

template <class Term, class A>
PTX_FN RowSource<A> query_source(const Problem& p, const Norms<A>& norms, const QueryTables<A>& t) {
  RowSource<A> source = row_source<A>(t.q, p.q, p.head_dim);
  source.norms = t.norms;
  source.has_norms = norms.q != nullptr;
  source.added = t.score_bias;
  source.has_added = Term::kHasWeight && p.score_bias != nullptr;
  return source;
}

template <class A>
PTX_FN RowSource<A> key_source(const Problem& p, const Norms<A>& norms, const KeyTables<A>& t) {
  RowSource<A> source = row_source<A>(t.k, p.k, p.head_dim);
  source.norms = t.norms;
  source.has_norms = norms.k != nullptr;
  return source;
}

// The raw products of the tables' rows: s = term(q, k).
template <class Term, Queries kQueries, int kRows, class A>
PTX_FN void multiply_keys(const Problem& p, const Norms<A>& norms, const QueryTables<A>& queries,
                          const KeyTables<A>& keys, const SlabRoom<A>& room, A (&s)[kRows][kQuad]) {
  const RowSource<A> q = query_source<Term>(p, norms, queries), k = key_source(p, norms, keys);
  const RowSource<A> weight = vector_source<A>(queries.weight, p.head_dim);
  if constexpr (kQueries == Queries::kFirst)
    multiply<Term, kQueries>(q, k, weight, p.head_dim, room, s);
  else
    multiply<Term, kQueries>(k, q, weight, p.head_dim, room, s);
}

}  // namespace attnext::cuda::simt
