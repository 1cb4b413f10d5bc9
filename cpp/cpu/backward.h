// Backward: one pass of five products. An item owns a chunk of keys of one (sequence, key head),
// keeps their dk and dv, and goes over the queries that see it, last ones first; dq and other
// per-row sums are passed on along the relay (relay.h), so that every sum has one order and memory
// stays O(seqlen).
#pragma once

#include "cpu/backward_sums.h"
#include "cpu/schedule.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

// Adds what the item found for a block's rows to the sums all items share. Only in its turn.
template <class A, class Term>
static void add_block(const BackwardParams& params, const BackwardSums<A>& sums, const Group& g,
                      Span rows, Part part, BackwardScratch<A>& w) {
  const Problem& p = params.problem;
  const int64_t width = padded<A>(p.head_dim);
  const auto dq_row = [&](int64_t row) {
    return sums.dq ? sums.dq + (row_base(sums, g) + row) * width
                   : reinterpret_cast<A*>(row_pointer(g, params.dq, row));
  };
  const auto add_to_row = [&](A* out, int64_t, int64_t first, int64_t columns, Vec<A> x) {
    out += first;
    if (columns == kLanes<A>)
      return store_unaligned<A>(out, part.is_first ? x : load_unaligned<A>(out) + x);
    if (part.is_first) std::memset(out, 0, sizeof(A) * (sums.dq ? kLanes<A> : columns));
    for (int64_t i = 0; i < columns; ++i) out[i] += x[i];
  };
  for (int i = 0; i < w.num_panels; ++i) {
    const GradientPanel<A>& panel = w.panels[i];
    if (!Term::kHasWeight && sums.wanted.dq)
      for_rows_of_transposed<A>(panel.panel, panel.dq_t, p.head_dim, dq_row, add_to_row);
    for (int64_t row = panel.panel.rows.begin; row < panel.panel.rows.end; ++row) {
      const int64_t at = row_base(sums, g) + row, lane = row - panel.panel.rows.begin;
      for (int i = 0; sums.rows && i < kNumRowSums; ++i)
        sums.rows[at * kNumRowSums + i] += panel.sums[i][lane];
    }
  }
  if (Term::kHasWeight && sums.wanted.dq)
    for (int64_t row = rows.begin; row < rows.end; ++row)
      for (int64_t d = 0; d < p.head_dim; d += kLanes<A>)
        add_to_row(dq_row(row), row, d, min_of(kLanes<A>, p.head_dim - d),
                   load<A>(w.dq + (row - rows.begin) * width + d));
  if (part.is_last && sums.dq && is_present(params.dq))
    finish_dq<A>(params, sums, g, rows, w.q_buffer);
}

// Where the gradients of a chunk's rows are summed up: where they belong, if they can stay as they
// are; aligned, since they are read and written once for each block of queries.
template <class A>
static A* sums_of_chunk(const TensorView& t, int64_t elements, bool is_final, const Group& g,
                        Span chunk, A* buffer) {
  if (!is_final || chunk.begin >= chunk.end || !is_present(t) || !is_packed<A>(t, elements))
    return buffer;
  A* rows = reinterpret_cast<A*>(key_pointer(g, t, chunk.begin));
  return reinterpret_cast<uintptr_t>(rows) % kVectorBytes == 0 ? rows : buffer;
}

// Zeros for the chunk's dk and dv.
template <class A>
static void start_chunk(const BackwardParams& params, const Group& g, Span chunk,
                        BackwardScratch<A>& w) {
  const Problem& p = params.problem;
  const int64_t count = chunk.end - chunk.begin;
  w.dk = sums_of_chunk(params.dk, p.head_dim, p.score != Score::kCosine, g, chunk, w.dk_buffer);
  w.dv = sums_of_chunk(params.dv, p.head_dim_v, w.riding_scale == 0, g, chunk, w.dv_buffer);
  std::memset(w.dk, 0, sizeof(A) * count * padded<A>(p.head_dim));
  std::memset(w.dv, 0, sizeof(A) * count * padded<A>(p.head_dim_v));
  std::memset(w.bias_keys, 0, sizeof(A) * p.group_size * kLongChunkKeys);
}

// The chunk's dk and dv, whole now, leave in the caller's type.
template <class A>
static void store_chunk(const BackwardParams& params, const Group& g, Span chunk,
                        BackwardScratch<A>& w) {
  const Problem& p = params.problem;
  const int64_t width = padded<A>(p.head_dim), width_v = padded<A>(p.head_dim_v);
  const A dv_factor = w.riding_scale > 0 ? static_cast<A>(1 / w.riding_scale) : A(1);
  if (is_present(params.dv) && w.dv == w.dv_buffer)
    for (int64_t key = chunk.begin; key < chunk.end; ++key)
      store_row<A>(key_pointer(g, params.dv, key), dtype_of(params.dv), params.dv.strides[3],
                   p.head_dim_v, w.dv + (key - chunk.begin) * width_v, dv_factor);
  if (!is_present(params.dk) || w.dk != w.dk_buffer) return;
  for (int64_t key = chunk.begin; key < chunk.end; ++key) {
    A* dk = w.dk + (key - chunk.begin) * width;
    if (p.score == Score::kCosine) {
      load_row<A>(key_pointer(g, p.k, key), dtype_of(p.k), p.k.strides[3], p.head_dim, w.q_buffer);
      unnormalise_gradient<A>(w.q_buffer, width, dk);
    }
    store_row<A>(key_pointer(g, params.dk, key), dtype_of(params.dk), params.dk.strides[3],
                 p.head_dim, dk);
  }
}

static void fill_key_padding(const BackwardParams& params, const Group& g) {
  const Problem& p = params.problem;
  if (p.is_packed) return;
  for (int64_t key = g.mask.seqlen_k; key < p.seqlen_k; ++key) {
    if (is_present(params.dk)) clear_row(key_pointer(g, params.dk, key), params.dk, p.head_dim);
    if (is_present(params.dv)) clear_row(key_pointer(g, params.dv, key), params.dv, p.head_dim_v);
  }
}

template <class A>
static void load_additive_weight(const Group& g, BackwardScratch<A>& w) {
  const Problem& p = *g.problem;
  const int64_t width = padded<A>(p.head_dim);
  std::memset(w.weight, 0, sizeof(A) * p.group_size * width);
  std::memset(w.dweight, 0, sizeof(double) * p.group_size * width);
  for (int64_t head = 0; head < p.group_size; ++head)
    for (int64_t d = 0; d < p.head_dim; ++d)
      w.weight[head * width + d] =
          static_cast<A>(p.weight[(g.head_kv * p.group_size + head) * p.head_dim + d]);
}

// What an item adds per key or per head goes to places of its own.
template <class A>
static void store_item_sums(const BackwardSums<A>& sums, const Group& g, Span chunk, int64_t item,
                            BackwardScratch<A>& w) {
  const Problem& p = *g.problem;
  const int64_t width = padded<A>(p.head_dim);
  if (sums.weight)
    std::memcpy(sums.weight + item * p.group_size * width, w.dweight,
                sizeof(double) * p.group_size * width);
  if (sums.bias_sum != BiasSum::kPerKey) return;
  for (int64_t head = 0; head < p.group_size; ++head)
    std::memcpy(sums.bias_keys + sums.keys_before[g.sequence] * p.num_heads_q +
                    (g.head_kv * p.group_size + head) * g.mask.seqlen_k + chunk.begin,
                w.bias_keys + head * kLongChunkKeys, sizeof(A) * (chunk.end - chunk.begin));
}

// What is read after a tile of keys: the next tile's rows and sums; after the last one the block of
// rows that is next, and dq of this one.
template <class A, class Term>
static void look_ahead(const BackwardParams& params, const BackwardSums<A>& sums, const Group& g,
                       Span rows, Span chunk, Span seen, Span tile,
                       const KeyRows<A, Term>& key_rows, BackwardScratch<A>& w) {
  const Problem& p = params.problem;
  const int64_t width = padded<A>(p.head_dim), width_v = padded<A>(p.head_dim_v);
  const int64_t next = tile.end - chunk.begin,
                count = min_of(tile.end - tile.begin, chunk.end - tile.end);
  if (count > 0 && tile.end < seen.end) {
    const KeyRows<A, Term> next_rows = rows_from(key_rows, next);
    w.ahead[0] = rows_ahead(next_rows.k, divide_up(p.head_dim, kPack<Term>), count);
    w.ahead[1] = buffer_ahead(w.dk + next * width, width, count);
    w.ahead[2] = rows_ahead(next_rows.v, divide_up(p.head_dim_v, kPack<Term>), count);
    w.ahead[3] = buffer_ahead(w.dv + next * width_v, width_v, count);
  } else {
    const Span next_rows = {max_of(0, rows.begin - kTileQ<A>), rows.begin};
    w.ahead[0] = rows_ahead(g, p.q, p.head_dim, next_rows);
    w.ahead[1] = rows_ahead(g, params.dout, p.head_dim_v, next_rows);
    w.ahead[2] = w.ahead[3] = {};
    if (sums.dq)
      w.ahead[2] = buffer_ahead(sums.dq + (row_base(sums, g) + rows.begin) * width, width,
                                rows.end - rows.begin);
    else if (is_present(params.dq))
      w.ahead[2] = rows_ahead(g, params.dq, p.head_dim, rows);
  }
  // In half the time there is: panels on a diagonal have less to do.
  const int64_t times = w.num_panels * (tile.end - tile.begin) / (2 * kScoreKeys);
  for (RowsAhead& ahead : w.ahead) ahead = spread(ahead, times);
}

// One block of rows against all of the chunk that it sees.
template <class A, class Term>
static void differentiate_chunk(const BackwardParams& params, const BackwardSums<A>& sums,
                                const Group& g, Span rows, Span chunk,
                                const KeyRows<A, Term>& key_rows, BackwardScratch<A>& w) {
  const RowSumsWanted wanted = {sums.rows != nullptr, params.dscale != nullptr,
                                params.dalibi_slopes != nullptr};
  const int64_t tile_k = gradient_tile_k(params.problem);
  const Span seen = reachable_keys(g.mask, queries_of(g, rows));
  for (int64_t key = chunk.begin; key < chunk.end; key += tile_k) {
    const Span tile = {key, min_of(key + tile_k, chunk.end)};
    if (!overlaps(tile, seen)) continue;
    look_ahead(params, sums, g, rows, chunk, seen, tile, key_rows, w);
    differentiate_block<A, Term>(sums, wanted, g, rows, chunk, tile,
                                 rows_from(key_rows, key - chunk.begin), w);
  }
}

template <class A, class Term>
static void backward_item(const BackwardParams& params, const BackwardSums<A>& sums, const Group& g,
                          int64_t index, int64_t item, const Predecessors& before,
                          BackwardScratch<A>& w) {
  const Problem& p = params.problem;
  const Span chunk = chunk_of(params, g.mask.seqlen_k, index);
  const KeyRows<A, Term> key_rows = load_chunk<A, Term>(g, chunk, w);
  w.riding_scale = riding_scale<A, Term>(g, sums);
  start_chunk(params, g, chunk, w);
  if (p.weight) load_additive_weight<A>(g, w);
  const Span blocks = blocks_seeing<A>(params, g, index);
  wait_for(before, sums.progress, turn_of(blocks.end - 1));
  publish(sums.progress + item, turn_of(blocks.end - 1));
  for (int64_t block = blocks.end - 1; block >= blocks.begin; --block) {
    const Span rows = {block * kTileQ<A>, min_of((block + 1) * kTileQ<A>, g.num_rows)};
    load_gradient_block<A, Term>(params, sums, g, rows, w);
    if constexpr (Term::kHasWeight)
      std::memset(w.dq, 0, sizeof(A) * (rows.end - rows.begin) * padded<A>(p.head_dim));
    if (sums.bias_sum == BiasSum::kShared) wait_for(before, sums.progress, turn_of(block) + 1);
    differentiate_chunk<A, Term>(params, sums, g, rows, chunk, key_rows, w);
    wait_for(before, sums.progress, turn_of(block) + 1);
    add_block<A, Term>(params, sums, g, rows, part_of<A>(params, g, index, block), w);
    publish(sums.progress + item, turn_of(block) + 1);
  }
  store_chunk<A>(params, g, chunk, w);
  finish_streaming();
  store_item_sums<A>(sums, g, chunk, item, w);
  // Items behind this one on its head need no more of those before it than it has waited for
  // (blocks_seeing); those of another head may.
  if (sums.bias_sum == BiasSum::kShared) wait_for(before, sums.progress, kFinished);
  publish(sums.progress + item, kFinished);
}

// Room for the shared sums; counted, then carved.
template <class A>
static void carve_sums(const BackwardParams& params, int64_t items, Arena* arena,
                       BackwardSums<A>* sums) {
  const Problem& p = params.problem;
  const int64_t rows = sums->queries_before[p.batch] * p.num_heads_q,
                keys = sums->keys_before[p.batch];
  const int64_t width = padded<A>(p.head_dim);
  const auto take_if = [&](bool is_wanted, int64_t count) {
    return is_wanted ? take<A>(arena, max_of(count, 1)) : nullptr;
  };
  sums->bias_sum = bias_sum_of(params);
  sums->wanted = products_wanted(params);
  sums->progress = take<int64_t>(arena, items);
  sums->lse_log2 = take<A>(arena, rows);
  sums->lse_rest = take<A>(arena, rows);
  sums->delta = take<A>(arena, rows);
  const bool has_row_sums =
      params.dscale || params.dalibi_slopes || params.dsinks || sums->bias_sum == BiasSum::kPerRow;
  sums->rows = has_row_sums ? take<double>(arena, rows * kNumRowSums) : nullptr;
  sums->bias_keys = take_if(sums->bias_sum == BiasSum::kPerKey, keys * p.num_heads_q);
  sums->weight = params.dweight ? take<double>(arena, items * p.group_size * width) : nullptr;
  sums->dq = take_if(sums->wanted.dq && !adds_to_dq<A>(params), rows * width);
  const bool is_shared = sums->bias_sum == BiasSum::kShared;
  const bool is_in_place = !is_shared || dtype_of(params.dbias) == kAccumulatorDType<A>;
  A* shared = take_if(!is_in_place, is_in_place ? 0 : num_elements(params.dbias));
  if (!is_shared && sums->bias_sum != BiasSum::kPerPair) return;
  sums->dbias = is_in_place ? broadcast_view(params.dbias)
                            : accumulators_like(params.dbias, kAccumulatorDType<A>, shared);
}

// Everything that is summed over items once all are done.
template <class A>
static void finish_sums(const BackwardParams& params, const BackwardSums<A>& sums,
                        const Schedule& items) {
  const Problem& p = params.problem;
  const bool has_small_bias =
      sums.bias_sum == BiasSum::kPerRow || sums.bias_sum == BiasSum::kPerKey;
  const Memory memory(
      has_small_bias ? static_cast<int64_t>(sizeof(double)) * num_elements(params.dbias) : 0);
  TensorView totals{};
  if (has_small_bias) {
    totals = accumulators_like(params.dbias, DType::kFloat64, memory.data());
    std::memset(memory.data(), 0, sizeof(double) * num_elements(params.dbias));
  }
  for (int64_t i = 0; i < p.batch * p.num_heads_kv; ++i) {
    const Group g = group_of(p, i / p.num_heads_kv, i % p.num_heads_kv);
    if (sums.rows) finish_rows_of_group<A>(params, sums, g, totals);
    if (params.dweight) sum_weights<A>(params, sums, items, g);
    if (params.dscore_bias) sum_score_bias<A>(params, sums, g);
    if (sums.bias_sum == BiasSum::kPerKey) sum_bias_keys<A>(sums, g, totals);
  }
  if (has_small_bias) copy_tensor<double>(static_cast<const double*>(totals.data), params.dbias);
  if (sums.bias_sum == BiasSum::kShared && sums.dbias.data != params.dbias.data)
    copy_tensor<A>(static_cast<const A*>(sums.dbias.data), params.dbias);
}

// Zeros where tiles of a shared bias gradient will be added.
template <class A>
static void clear_shared_bias(const BackwardParams& params, const BackwardSums<A>& sums) {
  if (sums.bias_sum != BiasSum::kShared) return;
  const TensorView& to = params.dbias;
  if (sums.dbias.data != to.data) {
    std::memset(sums.dbias.data, 0, sizeof(A) * num_elements(to));
    return;
  }
  for (int64_t row = 0; row < to.shape[0] * to.shape[1] * to.shape[2]; ++row) {
    const int64_t query = row % to.shape[2], matrix = row / to.shape[2];
    const int64_t index = matrix / to.shape[1] * to.strides[0] +
                          matrix % to.shape[1] * to.strides[1] + query * to.strides[2];
    clear_row(static_cast<char*>(to.data) + index * size_of(dtype_of(to)), to, to.shape[3]);
  }
}

// Item -> its chunk and predecessors.
template <class A, class Term>
static void run_item(const BackwardParams& params, const BackwardSums<A>& sums,
                     const Schedule& items, int64_t item, BackwardScratch<A>& w) {
  const Problem& p = params.problem;
  const Place place = place_of(items, item);
  const Group g = group_of(p, place.sequence, place.head_kv);
  const Span keys = chunk_of(params, g.mask.seqlen_k, place.index);
  const bool is_last = keys.end == g.mask.seqlen_k;
  Predecessors before = {place.index > 0 ? item - items.num_heads : -1, -1};
  if (sums.bias_sum == BiasSum::kShared)
    before.same_bias =
        bias_predecessor(params, items, place, {keys.begin, is_last ? kOpen : keys.end});
  if (is_last) fill_key_padding(params, g);
  if (sums.bias_sum == BiasSum::kPerPair) clear_unvisited_bias<A>(g, sums.dbias, keys, is_last);
  backward_item<A, Term>(params, sums, g, place.index, item, before, w);
}

template <class A, class Term>
static void run_backward(const BackwardParams& params) {
  const Problem& p = params.problem;
  const Memory tables(static_cast<int64_t>(sizeof(int64_t)) * 3 * (p.batch + 1));
  int64_t* first = reinterpret_cast<int64_t*>(tables.data());
  BackwardSums<A> sums{};
  sums.queries_before = first + (p.batch + 1);
  sums.keys_before = first + 2 * (p.batch + 1);
  sums.queries_before[0] = sums.keys_before[0] = 0;
  const Schedule items = make_schedule(p, first, [&](int64_t sequence) {
    const Mask& m = p.sequences[sequence].mask;
    sums.queries_before[sequence + 1] = sums.queries_before[sequence] + m.seqlen_q;
    sums.keys_before[sequence + 1] = sums.keys_before[sequence] + m.seqlen_k;
    return num_chunks(params, m.seqlen_k);
  });
  Arena counter{nullptr, 0};
  carve_sums<A>(params, num_items(items), &counter, &sums);
  const Memory sums_memory(counter.used);
  Arena arena{sums_memory.data(), 0};
  carve_sums<A>(params, num_items(items), &arena, &sums);
  std::memset(sums.progress, 0, sizeof(int64_t) * num_items(items));
  clear_shared_bias<A>(params, sums);

  const int workers = num_workers(num_items(items), score_flops(p, 5));
  const Scratches<BackwardScratch<A>, carve_backward<A>> scratch(p, workers);
  run_items(p.batch * p.num_heads_kv, workers, [&](int64_t i, int) {
    prepare_group<A>(params, sums, group_of(p, i / p.num_heads_kv, i % p.num_heads_kv));
  });
  run_items(num_items(items), workers, [&](int64_t item, int worker) {
    BackwardScratch<A> w = scratch[worker];
    run_item<A, Term>(params, sums, items, item, w);
  });
  finish_sums<A>(params, sums, items);
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
