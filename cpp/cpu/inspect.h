// Looking at attention: the weights of chosen rows, and per-row and per-key statistics of all of
// them in O(seqlen) memory. Both recompute scores tile by tile, once for the sum of a row and once
// for its weights.
#pragma once

#include "cpu/dispatch.h"
#include "cpu/forward.h"
#include "cpu/tile/gradient.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

template <class A>
static void load_panels(const Group& g, Span rows, ForwardScratch<A>& w) {
  with_term(*g.problem, [&](auto term) { load_block<A, decltype(term)>(g, rows, w); });
}

// Calls visit(panel index, tile, scores) for every tile of `keys` that some row of the block sees.
template <class A, class F>
static void for_score_tiles(const Group& g, Span keys, ForwardScratch<A>& w, F&& visit) {
  const QueryBlock<A>& block = *w.block;
  const Span range = reachable_tiles(g, block, keys);
  for (int64_t begin = range.begin; begin < range.end; begin += kTileK) {
    const Span tile_keys = {begin, min_of(begin + kTileK, range.end)};
    const RowBlock<A> k = load_keys<A>(g, tile_keys, Padding::kNone, w.k);
    for (int i = 0; i < block.num_panels; ++i) {
      const KeyTile tile = key_tile(g, block.panels[i], tile_keys);
      if (tile.kind == TileKind::kSkip) continue;
      const RowBlock<A> tile_k = {k.data + (tile.keys.begin - begin) * k.stride, k.stride};
      with_term(*g.problem, [&](auto term) {
        using Term = decltype(term);
        const Modifiers<A> modifiers =
            prepare_modifiers<A>(g, block.panels[i], tile, kForwardScale<Term>, {}, w.modifiers);
        compute_scores<A, Term>(block.panels[i], tile, tile_k, w.q_t[i], g.problem->head_dim,
                                modifiers, w.s);
      });
      visit(i, tile, w.s);
    }
  }
}

ATTNEXT_HD Span all_keys(const Group& g) { return {0, g.mask.seqlen_k}; }

// What the weights of a block's rows are relative to: p = factor 2^(s - base). More exact than
// 2^(s - lse), for a large lse is a rounded one.
template <class A>
struct BlockWeights {
  alignas(kVectorBytes) A base[kMaxPanels][kPanelLanes<A>];
  alignas(kVectorBytes) A factor[kMaxPanels][kPanelLanes<A>];
  alignas(kVectorBytes) A lse[kMaxPanels][kPanelLanes<A>];  // natural
};

// Loads a block and finds them.
template <class A>
static void find_weights(const Group& g, Span rows, ForwardScratch<A>& w,
                         BlockWeights<A>* weights) {
  load_panels<A>(g, rows, w);
  QueryBlock<A>& block = *w.block;
  for_score_tiles<A>(g, all_keys(g), w, [&](int i, const KeyTile& tile, A* s) {
    soften<A>(block.panels[i].vectors, tile.keys.end - tile.keys.begin, 0, s, block.o_t[i],
              &block.states[i]);
  });
  for (int i = 0; i < block.num_panels; ++i) {
    finish_rows<A>(g, block.panels[i], block.states[i], 0, block.o_t[i], weights->factor[i],
                   weights->lse[i]);
    for (int lane = 0; lane < lanes_of(block.panels[i]); lane += kLanes<A>)
      store<A>(weights->base[i] + lane,
               VectorMath<A>::finite_or_zero(load<A>(block.states[i].base + lane)));
  }
}

template <class A>
static void weights_block(const WeightsParams& params, const Group& g, Span rows,
                          ForwardScratch<A>& w) {
  const TensorView& out = params.p;
  const int64_t batch = g.problem->is_packed ? 0 : g.sequence;
  const int64_t* const places = params.places + (g.queries - params.rows);
  const auto row_of = [&](int64_t row) {
    const int64_t index = batch * out.strides[0] + head_of(g, row) * out.strides[1] +
                          places[row / g.problem->group_size] * out.strides[2];
    return static_cast<char*>(out.data) + index * size_of(dtype_of(out));
  };
  for (int64_t row = rows.begin; row < rows.end; ++row)
    clear_row(row_of(row), out, g.problem->seqlen_k);
  const int64_t existing = min_of(rows.end, g.num_rows);
  if (rows.begin >= existing) return;
  BlockWeights<A> weights;
  find_weights<A>(g, {rows.begin, existing}, w, &weights);
  for_score_tiles<A>(g, all_keys(g), w, [&](int i, const KeyTile& tile, A* s) {
    const Panel<A>& panel = w.block->panels[i];
    for_scores(panel, tile, [&](int64_t at, int64_t, int lane) {
      store<A>(s + at, exp2<A>(load<A>(s + at) - load<A>(weights.base[i] + lane)));
    });
    store_transposed<A>(
        panel, s, weights.factor[i], tile.keys.end - tile.keys.begin, out, [&](int64_t row) {
          return row_of(row) + tile.keys.begin * out.strides[3] * size_of(dtype_of(out));
        });
  });
}

template <class A>
static void run_weights(const WeightsParams& params) {
  const Problem& p = params.problem;
  const int64_t blocks = divide_up(params.num_rows * p.group_size, kTileQ<A>);
  const int64_t items = p.batch * p.num_heads_kv * blocks;
  const int workers = num_workers(items, score_flops(p, 2));
  const Scratches<ForwardScratch<A>, carve_forward<A>> scratch(p, workers);
  run_items(items, workers, [&](int64_t item, int worker) {
    const int64_t block = item % blocks, head = item / blocks;
    Group g = group_of(p, head / p.num_heads_kv, head % p.num_heads_kv);
    const Span chosen = chosen_rows(params, g.sequence);
    int64_t existing = chosen.end;  // rows are sorted: those beyond q_lengths are the last
    while (existing > chosen.begin && params.rows[existing - 1] >= g.mask.seqlen_q) --existing;
    g.queries = params.rows + chosen.begin;
    g.num_rows = (existing - chosen.begin) * p.group_size;
    ForwardScratch<A> w = scratch[worker];
    const int64_t all_rows = (chosen.end - chosen.begin) * p.group_size;
    weights_block<A>(params, g, {block * kTileQ<A>, min_of((block + 1) * kTileQ<A>, all_rows)}, w);
  });
}

// -sum p ln p of each row. Keys without weight add nothing, -0 ln 0.
template <class A>
static void add_entropy(const Panel<A>& panel, const KeyTile& tile, const A* s, const A* base,
                        const A* factor, A* entropy) {
  const int lanes = lanes_of(panel);
  for (int lane = 0; lane < lanes; lane += kLanes<A>) {
    const Vec<A> shift = log<A>(load<A>(factor + lane));
    Vec<A> sum{};
    for (int64_t key = 0; key < tile.keys.end - tile.keys.begin; ++key) {
      const Vec<A> relative = load<A>(s + key * lanes + lane) - load<A>(base + lane);
      const Vec<A> p = exp2<A>(relative) * load<A>(factor + lane);
      sum -= select<A>(p == Vec<A>{}, Vec<A>{}, p * (relative * A(kLn2) + shift));
    }
    add_to<A>(entropy + lane, sum);
  }
}

// What the weights of a group's rows are relative to, kept for the key sums: [rows of the group].
template <class A>
struct RowWeights {
  A *base, *factor;
};

template <class A>
static void stats_block(const StatsParams& params, const Group& g, Span rows,
                        const RowWeights<A>& kept, ForwardScratch<A>& w) {
  BlockWeights<A> weights;
  find_weights<A>(g, rows, w, &weights);
  alignas(kVectorBytes) A entropy[kMaxPanels][kPanelLanes<A>] = {};
  if (is_present(params.entropy))
    for_score_tiles<A>(g, all_keys(g), w, [&](int i, const KeyTile& tile, A* s) {
      add_entropy<A>(w.block->panels[i], tile, s, weights.base[i], weights.factor[i], entropy[i]);
    });
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    const int64_t i = (row - rows.begin) / kPanelLanes<A>,
                  lane = (row - rows.begin) % kPanelLanes<A>;
    kept.base[row] = weights.base[i][lane];
    kept.factor[row] = weights.factor[i][lane];
    const auto write_row = [&](const TensorView& t, A value) {
      if (is_present(t)) write_element<A>(row_pointer(g, t, row), dtype_of(t), value);
    };
    write_row(params.lse, weights.lse[i][lane]);
    write_row(params.row_max, w.block->states[i].base[lane] * A(kLn2));
    write_row(params.entropy, entropy[i][lane]);
  }
}

// Rows that exist in memory only.
template <class A>
static void fill_stats_padding(const StatsParams& params, const Group& g) {
  const Problem& p = params.problem;
  if (p.is_packed) return;
  for (int64_t row = g.num_rows; row < p.seqlen_q * p.group_size; ++row) {
    for (const TensorView* t : {&params.lse, &params.row_max})
      if (is_present(*t))
        write_element<A>(row_pointer(g, *t, row), dtype_of(*t), A(-__builtin_inf()));
    if (is_present(params.entropy))
      write_element<A>(row_pointer(g, params.entropy, row), dtype_of(params.entropy), A(0));
  }
}

ATTNEXT_HD char* mass_pointer(const StatsParams& params, const Group& g, int64_t head,
                              int64_t key) {
  const Problem& p = params.problem;
  const TensorView& t = params.key_mass;
  const int64_t batch = p.is_packed ? 0 : g.sequence;
  const int64_t at = (p.page_size > 0 ? 0 : p.sequences[g.sequence].k_begin) + key;
  const int64_t index =
      batch * t.strides[0] + (g.head_kv * p.group_size + head) * t.strides[1] + at * t.strides[2];
  return static_cast<char*>(t.data) + index * size_of(dtype_of(t));
}

// mass[head of the group][key of the chunk] += the weights of the panel's rows, in float64.
template <class A>
static void add_tile_mass(const Group& g, const Panel<A>& panel, const KeyTile& tile, const A* s,
                          const RowWeights<A>& kept, int64_t chunk_begin, double* mass) {
  const int64_t group_size = g.problem->group_size;
  for (int64_t row = panel.rows.begin; row < panel.rows.end; row += kLanes<A>) {
    const int64_t count = min_of(kLanes<A>, panel.rows.end - row), lane = row - panel.rows.begin;
    const auto values_of = [&](const A* rows) {
      return load_elements<A>(reinterpret_cast<const char*>(rows + row), kAccumulatorDType<A>, 1, 0,
                              count);
    };
    const Vec<A> base = values_of(kept.base), factor = values_of(kept.factor);
    for (int64_t key = tile.keys.begin; key < tile.keys.end; ++key) {
      const Vec<A> score = load<A>(s + (key - tile.keys.begin) * lanes_of(panel) + lane);
      const Vec<A> weight = exp2<A>(score - base) * factor;
      for (int64_t i = 0; i < count; ++i)
        mass[(row + i) % group_size * kChunkKeys + key - chunk_begin] +=
            static_cast<double>(weight[i]);
    }
  }
}

// What the keys of `chunk` receive from all rows of the group: [group_size][kChunkKeys].
template <class A>
static void sum_key_mass(const Group& g, Span chunk, const RowWeights<A>& kept,
                         ForwardScratch<A>& w, double* mass) {
  const int64_t group_size = g.problem->group_size;
  const Span queries = visible_queries(g.mask, chunk);
  const int64_t end = queries.end * group_size;
  for (int64_t begin = queries.begin * group_size; begin < end; begin += kTileQ<A>) {
    load_panels<A>(g, {begin, min_of(begin + kTileQ<A>, end)}, w);
    for_score_tiles<A>(g, chunk, w, [&](int i, const KeyTile& tile, const A* s) {
      add_tile_mass<A>(g, w.block->panels[i], tile, s, kept, chunk.begin, mass);
    });
  }
}

template <class A>
static void key_mass_item(const StatsParams& params, const Group& g, int64_t chunk,
                          const RowWeights<A>& kept, ForwardScratch<A>& w, double* mass) {
  const Problem& p = params.problem;
  const Span keys = {chunk * kChunkKeys, min_of((chunk + 1) * kChunkKeys, p.seqlen_k)};
  const Span existing = {keys.begin, min_of(keys.end, g.mask.seqlen_k)};
  std::memset(mass, 0, sizeof(double) * p.group_size * kChunkKeys);
  if (existing.begin < existing.end) sum_key_mass<A>(g, existing, kept, w, mass);
  const int64_t end = p.is_packed ? existing.end : keys.end;  // beyond a padded sequence: 0
  for (int64_t head = 0; head < p.group_size; ++head)
    for (int64_t key = keys.begin; key < end; ++key)
      write_element<A>(mass_pointer(params, g, head, key), dtype_of(params.key_mass),
                       static_cast<A>(mass[head * kChunkKeys + key - keys.begin]));
}

template <class A>
static void run_stats(const StatsParams& params) {
  const Problem& p = params.problem;
  const Memory tables(static_cast<int64_t>(sizeof(int64_t)) * 2 * (p.batch + 1));
  int64_t* queries_before = reinterpret_cast<int64_t*>(tables.data()) + (p.batch + 1);
  queries_before[0] = 0;
  const Schedule items =
      make_schedule(p, reinterpret_cast<int64_t*>(tables.data()), [&](int64_t sequence) {
        const int64_t queries = p.sequences[sequence].mask.seqlen_q;
        queries_before[sequence + 1] = queries_before[sequence] + queries;
        return max_of(1, divide_up(queries * p.group_size, kTileQ<A>));
      });
  const int64_t chunks = divide_up(p.seqlen_k, kChunkKeys), groups = p.batch * p.num_heads_kv;
  const int workers = num_workers(max_of(num_items(items), groups * chunks), score_flops(p, 3));
  const Scratches<ForwardScratch<A>, carve_forward<A>> scratch(p, workers);
  const int64_t num_rows = queries_before[p.batch] * p.num_heads_q;
  const Memory kept_memory(static_cast<int64_t>(sizeof(A)) * 2 * max_of(1, num_rows));
  const auto kept_of = [&](const Group& g) {
    A* base = reinterpret_cast<A*>(kept_memory.data()) +
              queries_before[g.sequence] * p.num_heads_q + g.head_kv * g.num_rows;
    return RowWeights<A>{base, base + num_rows};
  };
  run_items(num_items(items), workers, [&](int64_t item, int worker) {
    const Place place = place_of(items, item);
    const Group g = group_of(p, place.sequence, place.head_kv);
    if (place.index == 0) fill_stats_padding<A>(params, g);
    const Span rows = {place.index * kTileQ<A>, min_of((place.index + 1) * kTileQ<A>, g.num_rows)};
    if (rows.begin >= rows.end) return;
    ForwardScratch<A> w = scratch[worker];
    stats_block<A>(params, g, rows, kept_of(g), w);
  });
  if (!is_present(params.key_mass)) return;
  const int64_t mass_bytes = static_cast<int64_t>(sizeof(double)) * p.group_size * kChunkKeys;
  const Memory mass(mass_bytes * workers);
  run_items(groups * chunks, workers, [&](int64_t item, int worker) {
    const Group g = group_of(p, item / chunks / p.num_heads_kv, item / chunks % p.num_heads_kv);
    ForwardScratch<A> w = scratch[worker];
    key_mass_item<A>(params, g, item % chunks, kept_of(g), w,
                     reinterpret_cast<double*>(mass.data() + worker * mass_bytes));
  });
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
