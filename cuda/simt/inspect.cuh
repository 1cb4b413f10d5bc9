// Looking at attention: the weights of chosen rows, and per-row and per-key statistics of all of
// them in O(seqlen) memory. Both recompute scores tile by tile, once for the sum of a row and once
// for its weights.
#pragma once

#include "simt/forward.cuh"
#include "simt/warp.cuh"

namespace attnext::cuda::simt {

template <class A>
struct WeightsArguments {
  WeightsParams params;
  Norms<A> norms;
  int64_t tiles;  // of chosen rows
};

// What the weights of a row are relative to: p = factor 2^(s - base). More exact than 2^(s - lse),
// for a large lse is a rounded one. Workspace, in the order of row_base.
template <class A>
struct RowWeights {
  A *base, *factor;
};

template <class A>
struct StatsArguments {
  StatsParams params;
  Norms<A> norms;
  RowWeights<A> weights;
  int64_t query_tiles, key_tiles;
};

template <int kRows, class A>
struct BlockWeights {
  A base[kRows], factor[kRows], lse[kRows], row_max[kRows];
};

// Finds them for the block's rows, whose tables are filled.
template <class Term, int kRows, class A>
PTX_FN BlockWeights<kRows, A> find_weights(const Problem& p, const Norms<A>& norms, Span rows,
                                           Span queries, Span range,
                                           const ForwardShared<A, Term, kRows>& shared) {
  RowStates<kRows, A> states;
  reset(states);
  for (int64_t begin = range.begin; begin < range.end; begin += kTileK) {
    const KeyTile tile = key_tile(load_struct(shared.group, 0).mask, queries, range, begin, kTileK);
    if (tile.keys.begin == tile.keys.end) continue;
    A s[kRows][kQuad], rescale[kRows];
    compute_scores<Term>(p, shared.group, norms, shared.queries, shared.keys, shared.room, tile, s);
    soften(s, states, rescale);
  }
  join_sums(states);
  BlockWeights<kRows, A> w = {};
  const Group g = load_struct(shared.group, 0);
#pragma unroll 1
  for (int i = 0; i < kRows; ++i, turn(states.row_max), turn(states.row_sum)) {
    const int64_t row = rows.begin + thread_place().ty * kRows + i;
    FinishedRow<A> finished = {A(0), A(0), true};
    if (row < rows.end) finished = finish_row_of(p, g, row, states.row_max[0], states.row_sum[0]);
    turn(w.row_max), turn(w.base), turn(w.factor), turn(w.lse);
    w.row_max[kRows - 1] = states.row_max[0];
    w.base[kRows - 1] = ThreadMath<A>::finite_or_zero(states.row_max[0]);
    w.factor[kRows - 1] = finished.factor;
    w.lse[kRows - 1] = finished.lse;
  }
  return w;
}

// Calls visit(tile, s) for the tiles that the rows see, their scores in s.
template <class Term, int kRows, class A, class F>
PTX_FN void for_score_tiles(const Problem& p, const Norms<A>& norms, Span queries, Span range,
                            const ForwardShared<A, Term, kRows>& shared, F&& visit) {
  for (int64_t begin = range.begin; begin < range.end; begin += kTileK) {
    const KeyTile tile = key_tile(load_struct(shared.group, 0).mask, queries, range, begin, kTileK);
    if (tile.keys.begin == tile.keys.end) continue;
    A s[kRows][kQuad];
    compute_scores<Term>(p, shared.group, norms, shared.queries, shared.keys, shared.room, tile, s);
    visit(tile, s);
  }
}

// Fills the tables of a block's rows, which are not none.
template <class Term, int kRows, class A>
PTX_FN void start_rows(const Problem& p, const Group& g, const Norms<A>& norms, Span rows,
                       const ForwardShared<A, Term, kRows>& shared) {
  if (thread_place().index == 0) store_struct(shared.group, 0, g);
  store_query_rows<Term>(p, g, rows, kTileRows<kRows>, norms, shared.queries);
  ptx::block_sync();
}

// Chosen rows are sorted: those beyond a sequence's own are the last.
PTX_FN int64_t existing_rows(const int64_t* rows, int64_t num_rows, int64_t seqlen_q) {
  int64_t low = 0, high = num_rows;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (rows[middle] < seqlen_q)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

PTX_FN char* weights_row(const WeightsParams& params, const Group& g, int64_t row) {
  const TensorView& t = params.p;
  const int64_t batch = params.problem.is_packed ? 0 : g.sequence,
                place = params.places[g.queries - params.rows + row / g.num_heads];
  return element_pointer(
      t, batch * t.strides[0] + head_of(g, row) * t.strides[1] + place * t.strides[2]);
}

// One tile of chosen rows.
template <class A, class Term>
PTX_FN void weights_item(const WeightsArguments<A>& a, int64_t item) {
  constexpr int kRows = kManyRows, kTile = kTileRows<kRows>;
  const WeightsParams& params = a.params;
  const Problem& p = params.problem;
  uint32_t at = ptx::dyn_smem();
  const ForwardShared<A, Term, kRows> shared = carve_forward<A, Term, kRows>(&at);
  const ThreadPlace place = thread_place();
  const int64_t head = item / a.tiles;
  Group g = group_of(p, head / p.num_heads_kv, head % p.num_heads_kv);
  const Span chosen = chosen_rows(params, g.sequence);
  const int64_t count = chosen.end - chosen.begin, all_rows = count * p.group_size;
  g.queries = params.rows + chosen.begin;
  g.num_rows = existing_rows(g.queries, count, g.mask.seqlen_q) * p.group_size;
  const int64_t first = item % a.tiles * kTile;
  const Span rows = {first, min_of(first + kTile, g.num_rows)};
  // Pairs that the passes over tiles do not visit have no weight.
  const int num_rows = static_cast<int>(min_of(kTile, all_rows - first));
  for (int row = place.ty; row < num_rows; row += kSide) {
    char* out = weights_row(params, g, first + row);
    const A zeros[kQuad] = {};
    for (int64_t key = place.tx * kQuad; key < p.seqlen_k; key += kTileK)
      write_quad<A>(out, dtype_of(params.p), params.p.strides[3], key, p.seqlen_k, zeros);
  }
  if (rows.begin >= rows.end) return;
  start_rows(p, g, a.norms, rows, shared);
  const Span queries = queries_of(g, rows);
  const Span range = reachable_tiles(g.mask, queries, {0, g.mask.seqlen_k});
  BlockWeights<kRows, A> w = find_weights(p, a.norms, rows, queries, range, shared);
  for_score_tiles(
      p, a.norms, queries, range, shared, [&](const KeyTile& tile, A(&s)[kManyRows][kQuad]) {
        const Group again = load_struct(shared.group, 0);
#pragma unroll 1
        for (int i = 0; i < kManyRows; ++i, turn_rows(s), turn(w.base), turn(w.factor)) {
          const int64_t row = rows.begin + place.ty * kManyRows + i;
          if (row >= rows.end) continue;
#pragma unroll
          for (int j = 0; j < kQuad; ++j)
            s[0][j] = ThreadMath<A>::exp2(s[0][j] - w.base[0]) * w.factor[0];
          write_quad<A>(weights_row(params, again, row), dtype_of(params.p), params.p.strides[3],
                        tile.keys.begin + place.tx * kQuad, tile.keys.end, s[0]);
        }
      });
}

template <class A, class Term>
__global__ void __launch_bounds__(kThreads, 1)
    weights_kernel(const __grid_constant__ WeightsArguments<A> a) {
  const Problem& p = a.params.problem;
  for_blocks(p.batch * p.num_heads_kv * a.tiles,
             [&](int64_t item) { weights_item<A, Term>(a, item); });
}

// -sum p ln p of four keys. Keys without weight add nothing, -0 ln 0.
template <class A>
PTX_FN A entropy_of(const A (&s)[kQuad], A base, A factor, A log_factor) {
  A sum = A(0);
#pragma unroll
  for (int j = 0; j < kQuad; ++j) {
    const A relative = s[j] - base, p = ThreadMath<A>::exp2(relative) * factor;
    if (p != A(0)) sum -= p * (relative * A(kLn2) + log_factor);
  }
  return sum;
}

template <class A>
PTX_FN void write_stat(const Problem& p, const Group& g, const TensorView& t, int64_t row, A x) {
  if (is_present(t)) write_element<A>(row_pointer(p, g, t, row), dtype_of(t), x);
}

// What a row that exists in memory only has.
template <class A>
PTX_FN void write_absent_row(const StatsParams& params, const Group& g, int64_t row) {
  const Problem& p = params.problem;
  write_stat(p, g, params.lse, row, negative_infinity<A>());
  write_stat(p, g, params.row_max, row, negative_infinity<A>());
  write_stat(p, g, params.entropy, row, A(0));
}

template <class A, class Term>
PTX_FN void row_stats_item(const StatsArguments<A>& a, int64_t item) {
  constexpr int kRows = kManyRows, kTile = kTileRows<kRows>;
  const StatsParams& params = a.params;
  const Problem& p = params.problem;
  uint32_t at = ptx::dyn_smem();
  const ForwardShared<A, Term, kRows> shared = carve_forward<A, Term, kRows>(&at);
  const ThreadPlace place = thread_place();
  const int64_t head = item / a.query_tiles, first = item % a.query_tiles * kTile;
  const Group g = group_of(p, head / p.num_heads_kv, head % p.num_heads_kv);
  const Span rows = {first, min_of(first + kTile, g.num_rows)};
  const int64_t padded = min_of(first + kTile, rows_in_memory(p, g));
  for (int64_t row = max_of(first, g.num_rows) + place.index; row < padded; row += kThreads)
    write_absent_row<A>(params, g, row);
  if (rows.begin >= rows.end) return;
  start_rows(p, g, a.norms, rows, shared);
  const Span queries = queries_of(g, rows);
  const Span range = reachable_tiles(g.mask, queries, {0, g.mask.seqlen_k});
  const BlockWeights<kRows, A> w = find_weights(p, a.norms, rows, queries, range, shared);
  A entropy[kRows] = {};
  if (is_present(params.entropy))
    for_score_tiles(
        p, a.norms, queries, range, shared, [&](const KeyTile&, A(&s)[kManyRows][kQuad]) {
#pragma unroll
          for (int i = 0; i < kManyRows; ++i)
            entropy[i] += entropy_of(s[i], w.base[i], w.factor[i], ThreadMath<A>::log(w.factor[i]));
        });
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const int64_t row = first + place.ty * kRows + i;
    const A whole = row_sum_of(entropy[i]);
    if (row >= rows.end || place.tx != 0) continue;
    const Group again = load_struct(shared.group, 0);
    write_stat(p, again, params.lse, row, w.lse[i]);
    write_stat(p, again, params.row_max, row, w.row_max[i] * A(kLn2));
    write_stat(p, again, params.entropy, row, whole);
    if (!a.weights.base) continue;
    a.weights.base[row_base(p, again) + row] = w.base[i];
    a.weights.factor[row_base(p, again) + row] = w.factor[i];
  }
}

template <class A, class Term>
__global__ void __launch_bounds__(kThreads, 1)
    row_stats_kernel(const __grid_constant__ StatsArguments<A> a) {
  const Problem& p = a.params.problem;
  for_blocks(p.batch * p.num_heads_kv * a.query_tiles,
             [&](int64_t item) { row_stats_item<A, Term>(a, item); });
}

// sum[j] += the weights that a tile's rows give the thread's keys.
template <class Term, int kRows, class A>
PTX_FN void add_tile_mass(const StatsArguments<A>& a, const Group& g, Span rows, int64_t key,
                          const ForwardShared<A, Term, kRows>& shared, double (&sum)[kQuad]) {
  const Problem& p = a.params.problem;
  const KeyTile tile = key_tile(g.mask, queries_of(g, rows), {0, g.mask.seqlen_k}, key, kTileK);
  if (tile.keys.begin == tile.keys.end) return;
  start_rows(p, g, a.norms, rows, shared);
  A s[kRows][kQuad];
  compute_scores<Term>(p, shared.group, a.norms, shared.queries, shared.keys, shared.room, tile, s);
  const Group again = load_struct(shared.group, 0);
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const int64_t row = rows.begin + thread_place().ty * kRows + i;
    if (row >= rows.end) continue;
    const int64_t at = workspace_row(p, again, position_of(again, row));
    const A base = a.weights.base[at], factor = a.weights.factor[at];
#pragma unroll
    for (int j = 0; j < kQuad; ++j)
      sum[j] += static_cast<double>(ThreadMath<A>::exp2(s[i][j] - base) * factor);
  }
  ptx::block_sync();
}

// What a tile of keys receives from all queries of one (sequence, head).
template <class A, class Term>
PTX_FN void key_mass_item(const StatsArguments<A>& a, int64_t item) {
  constexpr int kRows = kManyRows, kTile = kTileRows<kRows>;
  const Problem& p = a.params.problem;
  uint32_t at = ptx::dyn_smem();
  const ForwardShared<A, Term, kRows> shared = carve_forward<A, Term, kRows>(&at);
  const ThreadPlace place = thread_place();
  const int64_t begin = item % a.key_tiles * kTileK, index = item / a.key_tiles;
  const Group g = head_of_group(p, index / p.num_heads_q, index % p.num_heads_q);
  const Span keys = {begin, min_of(begin + kTileK, g.mask.seqlen_k)};
  double sum[kQuad] = {};
  const Span queries = keys.begin < keys.end ? visible_queries(g.mask, keys) : Span{0, 0};
  for (int64_t row = queries.begin / kTile * kTile; row < queries.end; row += kTile)
    add_tile_mass(a, g, {row, min_of(row + kTile, g.num_rows)}, begin, shared, sum);
  const SharedArray<double> parts = {shared.p.address};
  store_values<kQuad>(parts, place.ty * kTileK + place.tx * kQuad, sum);
  ptx::block_sync();
  const int64_t key = begin + place.index;
  if (place.index >= kTileK || key >= keys_in_memory(p, g)) return;
  double whole = 0;
  for (int ty = 0; ty < kSide; ++ty) whole += load(parts, ty * kTileK + place.index);
  const TensorView& t = a.params.key_mass;
  const int64_t batch = p.is_packed ? 0 : g.sequence, position = g.k_begin + key;
  write_element<A>(element_pointer(t, batch * t.strides[0] + g.first_head * t.strides[1] +
                                          position * t.strides[2]),
                   dtype_of(t), static_cast<A>(whole));
}

template <class A, class Term>
__global__ void __launch_bounds__(kThreads, 1)
    key_mass_kernel(const __grid_constant__ StatsArguments<A> a) {
  const Problem& p = a.params.problem;
  for_blocks(p.batch * p.num_heads_q * a.key_tiles,
             [&](int64_t item) { key_mass_item<A, Term>(a, item); });
}

}  // namespace attnext::cuda::simt
