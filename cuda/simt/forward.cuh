// Forward: tiled attention with an online softmax (Dao et al. 2022, arXiv:2205.14135). A block owns
// a tile of query rows and up to 128 columns of values. Few rows over many keys (decoding) are
// split over keys at fixed positions and joined in order (combine.cuh).
#pragma once

#include "ptx/launch.h"
#include "simt/block.cuh"
#include "simt/softmax.cuh"

namespace attnext::cuda::simt {

// The states that splits leave behind, [split state][rows]: of (sequence, key head) `i` the splits
// [i * num_splits, ..) in the order of their keys.
template <class A>
struct SplitStates {
  A *row_max, *row_sum;
  A* o;  // [.., head_dim_v]
  int64_t num_splits, rows;
};

template <class A>
struct ForwardArguments {
  ForwardParams params;
  Norms<A> norms;
  SplitStates<A> splits;
  int64_t items_per_head, slices;
};

// How the rows and keys of a sequence are cut. By its own shape alone, so that its bits do not
// depend on its neighbours in the batch.
ATTNEXT_HD int64_t num_splits(const Mask& m, int64_t group_size) {
  const int64_t rows = m.seqlen_q * group_size;
  const bool has_few_rows = rows > 0 && rows <= kTileRows<kManyRows>;
  return has_few_rows ? max_of(1, divide_up(m.seqlen_k, kSplitKeys)) : 1;
}

template <class A, class Term, int kRows>
struct ForwardShared {
  QueryTables<A> queries;
  KeyTables<A> keys;
  SlabRoom<A> room;
  SharedArray<A> values;  // where the slabs of the first product lie
  SharedArray<A> p;
  SharedArray<Group> group;
};

template <class A, class Term, int kRows>
ATTNEXT_HD constexpr ForwardShared<A, Term, kRows> carve_forward(uint32_t* at) {
  constexpr int kTileQ = kTileRows<kRows>;
  ForwardShared<A, Term, kRows> s{};
  s.group = take_shared<Group>(at, 1);
  s.queries = take_query_tables<A>(at, kTileQ, {Term::kHasWeight, false});
  s.keys = take_key_tables<A>(at);
  s.p = take_shared<A>(at, kTileK * kTileQ);
  uint32_t values = *at;
  s.values = take_shared<A>(&values, kSlab<A> * kQuads<A, Term> * kQuadColumns);
  s.room.first = take_shared<A>(at, kSlab<A> * kTileQ);
  s.room.second = take_shared<A>(at, kSlab<A> * kTileK);
  s.room.weight = s.p;  // which is written after the product
  if (values > *at) *at = values;
  return s;
}

template <class A, class Term, int kRows>
constexpr uint32_t forward_bytes() {
  uint32_t at = 0;
  carve_forward<A, Term, kRows>(&at);
  return at;
}

template <int kRows, int kColumns, class A>
PTX_FN void rescale_rows(const A (&rescale)[kRows], A (&o)[kRows][kColumns]) {
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) o[i][c] *= rescale[i];
  }
}

template <int kRows, class A>
PTX_FN void drop_weights(const Problem& p, int64_t sequence, SharedArray<ScoreRow<A>> rows,
                         const KeyTile& tile, A (&s)[kRows][kQuad]) {
  const ThreadPlace place = thread_place();
#pragma unroll 1
  for (int i = 0; i < kRows; ++i, turn_rows(s)) {
    A factors[kQuad];
    draw_dropout(p, sequence, load_struct(rows, place.ty * kRows + i),
                 tile.keys.begin + place.tx * kQuad, factors);
#pragma unroll
    for (int j = 0; j < kQuad; ++j) s[0][j] *= factors[j];
  }
}

// s = the scores of the block's rows against the tile's keys, to base 2. Fills the key tables.
template <class Term, int kRows, class A>
PTX_FN void compute_scores(const Problem& p, SharedArray<Group> group, const Norms<A>& norms,
                           const QueryTables<A>& queries, const KeyTables<A>& keys,
                           const SlabRoom<A>& room, const KeyTile& tile, A (&s)[kRows][kQuad]) {
  store_key_rows(p, load_struct(group, 0), tile.keys, norms, keys);
  ptx::block_sync();
  multiply_keys<Term, Queries::kFirst>(p, norms, queries, keys, room, s);
  const Mask mask = load_struct(group, 0).mask;
  const ThreadPlace place = thread_place();
#pragma unroll 1
  for (int i = 0; i < kRows; ++i, turn_rows(s))
    modify_scores<A>(p, mask, load_struct(queries.scores, place.ty * kRows + i), tile,
                     tile.keys.begin + place.tx * kQuad, nullptr, s[0]);
}

// The tiles of `keys` that some of the queries can see, from the beginning of a tile on: tiles lie
// at fixed positions.
PTX_FN Span reachable_tiles(const Mask& mask, Span queries, Span keys) {
  const Span reachable = reachable_keys(mask, queries);
  return {max_of(keys.begin, reachable.begin / kTileK * kTileK), min_of(keys.end, reachable.end)};
}

// The block's rows attend the keys of `range`.
template <class Term, int kRows, class A, int kColumns>
PTX_FN void attend(const ForwardArguments<A>& a, Span queries, Span range, Columns columns,
                   const ForwardShared<A, Term, kRows>& shared, RowStates<kRows, A>& states,
                   A (&o)[kRows][kColumns]) {
  const Problem& p = a.params.problem;
  const RowSource<A> v = row_source<A>(shared.keys.v, p.v, p.head_dim_v);
  for (int64_t begin = range.begin; begin < range.end; begin += kTileK) {
    const KeyTile tile = key_tile(load_struct(shared.group, 0).mask, queries, range, begin, kTileK);
    if (tile.keys.begin == tile.keys.end) continue;
    A s[kRows][kQuad], rescale[kRows];
    compute_scores<Term>(p, shared.group, a.norms, shared.queries, shared.keys, shared.room, tile,
                         s);
    soften(s, states, rescale);
    rescale_rows(rescale, o);
    if (p.dropout.probability > 0)
      drop_weights(p, load_struct(shared.group, 0).sequence, shared.queries.scores, tile, s);
    store_tile(s, shared.p);
    accumulate(shared.p, v, static_cast<int>(tile.keys.end - tile.keys.begin), columns,
               shared.values, o, [](int, int, A value) { return value; });
  }
}

template <int kRows, class A, int kColumns>
PTX_FN void store_rows(const ForwardArguments<A>& a, const Group& g, int64_t first, Columns columns,
                       RowStates<kRows, A>& states, A (&o)[kRows][kColumns]) {
  const ForwardParams& params = a.params;
  const Problem& p = params.problem;
  const ThreadPlace place = thread_place();
  const TensorView& out = params.out;
#pragma unroll 1
  for (int i = 0; i < kRows; ++i, turn_rows(o), turn(states.row_max), turn(states.row_sum)) {
    const int64_t row = first + place.ty * kRows + i;
    if (row >= rows_in_memory(p, g)) continue;
    // Rows beyond a sequence's q_lengths exist in memory only.
    FinishedRow<A> finished = {A(0), negative_infinity<A>(), true};
    if (row < g.num_rows) finished = finish_row_of(p, g, row, states.row_max[0], states.row_sum[0]);
    if (place.tx == 0 && columns.begin == 0 && is_present(params.lse))
      write_element<A>(row_pointer(p, g, params.lse, row), dtype_of(params.lse), finished.lse);
    char* out_row = row_pointer(p, g, out, row);
#pragma unroll
    for (int quad = 0; quad < kColumns / kQuad; ++quad) {
      A values[kQuad];
#pragma unroll
      for (int j = 0; j < kQuad; ++j)
        values[j] = (finished.is_empty ? A(0) : o[0][quad * kQuad + j]) * finished.factor;
      write_quad<A>(out_row, dtype_of(out), out.strides[3], columns.begin + column_of(quad * kQuad),
                    p.head_dim_v, values);
    }
  }
}

template <int kRows, class A, int kColumns>
PTX_FN void store_split(const ForwardArguments<A>& a, const Group& g, int64_t split,
                        Columns columns, RowStates<kRows, A>& states, A (&o)[kRows][kColumns]) {
  const Problem& p = a.params.problem;
  const SplitStates<A>& out = a.splits;
  const ThreadPlace place = thread_place();
  const int64_t first =
      ((g.sequence * p.num_heads_kv + g.head_kv) * out.num_splits + split) * out.rows;
#pragma unroll 1
  for (int i = 0; i < kRows; ++i, turn_rows(o), turn(states.row_max), turn(states.row_sum)) {
    const int64_t row = place.ty * kRows + i;
    if (row >= g.num_rows) continue;
    if (place.tx == 0 && columns.begin == 0) {
      out.row_max[first + row] = states.row_max[0];
      out.row_sum[first + row] = states.row_sum[0];
    }
    char* o_row = reinterpret_cast<char*>(out.o + (first + row) * p.head_dim_v);
#pragma unroll
    for (int quad = 0; quad < kColumns / kQuad; ++quad) {
      A values[kQuad];
#pragma unroll
      for (int j = 0; j < kQuad; ++j) values[j] = o[0][quad * kQuad + j];
      write_quad<A>(o_row, kAccumulatorDType<A>, 1, columns.begin + column_of(quad * kQuad),
                    p.head_dim_v, values);
    }
  }
}

// Which piece of the work an item is.
struct ForwardPlace {
  int64_t slice, block, splits, split;
  bool exists;
};

template <int kRows, class A>
PTX_FN ForwardPlace forward_place(const ForwardArguments<A>& a, const Group& g, int64_t item) {
  const Problem& p = a.params.problem;
  const int64_t slice = item / a.items_per_head % a.slices, index = item % a.items_per_head;
  const int64_t splits = num_splits(g.mask, p.group_size);
  if (splits > 1) return {slice, 0, splits, index, index < splits};
  // The last rows of a causal sequence have the most keys: first, so that the end is shared out
  // evenly.
  const int64_t block = divide_up(rows_in_memory(p, g), kTileRows<kRows>) - 1 - index;
  return {slice, block, 1, 0, block >= 0};
}

// One tile of rows of a (sequence, key head), or one split of the only tile.
template <class A, class Term, int kRows>
PTX_FN void forward_item(const ForwardArguments<A>& a, int64_t item) {
  constexpr int kTileQ = kTileRows<kRows>, kColumns = kQuads<A, Term> * kQuad;
  const Problem& p = a.params.problem;
  uint32_t at = ptx::dyn_smem();
  const ForwardShared<A, Term, kRows> shared = carve_forward<A, Term, kRows>(&at);
  const int64_t head = item / a.items_per_head / a.slices;
  const Group g = group_of(p, head / p.num_heads_kv, head % p.num_heads_kv);
  const ForwardPlace place = forward_place<kRows>(a, g, item);
  if (!place.exists) return;
  const Columns columns = columns_of<kQuads<A, Term>>(place.slice, p.head_dim_v);
  RowStates<kRows, A> states;
  reset(states);
  A o[kRows][kColumns] = {};
  const Span rows = {place.block * kTileQ, min_of((place.block + 1) * kTileQ, g.num_rows)};
  if (rows.begin < rows.end) {
    if (thread_place().index == 0) store_struct(shared.group, 0, g);
    store_query_rows<Term>(p, g, rows, kTileQ, a.norms, shared.queries);
    const Span queries = queries_of(g, rows), all = {0, g.mask.seqlen_k};
    const int64_t begin = place.split * kSplitKeys;
    const Span keys = place.splits > 1 ? Span{begin, min_of(begin + kSplitKeys, all.end)} : all;
    const Span range = reachable_tiles(g.mask, queries, keys);
    ptx::block_sync();
    attend(a, queries, range, columns, shared, states, o);
    join_sums(states);
  }
  const Group again = group_of(p, head / p.num_heads_kv, head % p.num_heads_kv);
  if (place.splits > 1)
    store_split(a, again, place.split, columns, states, o);
  else
    store_rows(a, again, rows.begin, columns, states, o);
}

template <class A, class Term, int kRows>
__global__ void __launch_bounds__(kThreads, 1)
    forward_kernel(const __grid_constant__ ForwardArguments<A> a) {
  const Problem& p = a.params.problem;
  for_blocks(p.batch * p.num_heads_kv * a.slices * a.items_per_head,
             [&](int64_t item) { forward_item<A, Term, kRows>(a, item); });
}

}  // namespace attnext::cuda::simt
