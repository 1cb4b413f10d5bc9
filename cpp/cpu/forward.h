// Forward: tiled attention with an online softmax (Dao et al. 2022, arXiv:2205.14135) in the
// transposed formulation, lanes are queries. Few rows over many keys (decoding) are split over keys
// at fixed positions and joined in order.
#pragma once

#include "cpu/schedule.h"
#include "cpu/tile/few_rows.h"
#include "cpu/tile/load.h"
#include "cpu/tile/scores.h"
#include "cpu/tile/store.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

template <class A>
struct QueryBlock {
  int num_panels;
  Panel<A> panels[kMaxPanels];
  RowState<A> states[kMaxPanels];
  A* o_t[kMaxPanels];  // [head_dim_v][lanes]
};

// What one worker needs.
template <class A>
struct ForwardScratch {
  QueryBlock<A>* block;
  A *q_t[kMaxPanels], *weight_t[kMaxPanels];
  A *k, *v;        // a key tile, where it cannot be read in place
  A *s, *scratch;  // [kTileK][lanes]
  A* q_rows;       // the rows of a panel of few, padded
  int few_rows;    // 0: the panel is not one; else as many rows as the products are made for
};

template <class A>
static ForwardScratch<A> carve_forward(const Problem& p, Arena* arena) {
  const int64_t lanes = kPanelLanes<A>;
  ForwardScratch<A> w;
  w.block = take<QueryBlock<A>>(arena, 1);
  for (int i = 0; i < kMaxPanels; ++i) {
    w.q_t[i] = take<A>(arena, p.head_dim * lanes);
    w.weight_t[i] = take<A>(arena, p.weight ? p.head_dim * lanes : 0);
    A* o_t = take<A>(arena, p.head_dim_v * lanes);
    if (arena->base) w.block->o_t[i] = o_t;
  }
  w.k = take<A>(arena, kTileK * round_up(p.head_dim, kLanes<A>));
  w.v = take<A>(arena, kTileK * round_up(p.head_dim_v, kLanes<A>));
  w.s = take<A>(arena, kTileK * lanes);
  w.scratch = take<A>(arena, kTileK * lanes);
  w.q_rows = take<A>(arena, kFewRows<A> * round_up(p.head_dim, kLanes<A>));
  w.few_rows = 0;
  return w;
}

template <class Term>
constexpr ScaleOn kForwardScale = Term::kIsBilinear ? ScaleOn::kQueries : ScaleOn::kScores;

template <class A, class Term>
static void load_block(const Group& g, Span rows, ForwardScratch<A>& w) {
  QueryBlock<A>& block = *w.block;
  block.num_panels = static_cast<int>(divide_up(rows.end - rows.begin, kPanelLanes<A>));
  for (int i = 0; i < block.num_panels; ++i) {
    const int64_t begin = rows.begin + i * kPanelLanes<A>;
    load_queries<A>(g, {begin, min_of(begin + kPanelLanes<A>, rows.end)}, kForwardScale<Term>,
                    w.q_t[i], w.weight_t[i], &block.panels[i]);
    reset(&block.states[i]);
    std::memset(block.o_t[i], 0, sizeof(A) * g.problem->head_dim_v * lanes_of(block.panels[i]));
  }
  const int64_t num_rows = rows.end - rows.begin;
  w.few_rows = 0;
  if (!Term::kIsBilinear || num_rows > kFewRows<A>) return;
  w.few_rows = num_rows == 3 ? 4 : static_cast<int>(num_rows);
  std::memset(w.q_rows, 0, sizeof(A) * kFewRows<A> * round_up(g.problem->head_dim, kLanes<A>));
  gather_rows<A>(block.panels[0], g.problem->head_dim, w.q_rows);
}

template <class A>
static void drop_weights(const Group& g, const Panel<A>& panel, const KeyTile& tile, A* p,
                         A* factors) {
  load_dropout<A>(g, panel, tile, factors);
  for_scores(panel, tile, [&](int64_t i, int64_t, int) {
    store<A>(p + i, load<A>(p + i) * load<A>(factors + i));
  });
}

// A weight is exact to rounding whatever maximum it is relative to, as long as sums stay finite.
template <class A>
constexpr A kLargestSum = A(1e12);

// Rows whose sum of weights `sum` has grown out of hand take the maximum of `s` too; the others,
// and rows that are NaN for good, keep theirs: a row's bits must not depend on its neighbours.
template <class A>
static void raise_outgrown(int vectors, int64_t num_keys, int64_t head_dim_v, const A* s,
                           const A* sum, A* o_t, RowState<A>* state) {
  const int lanes = vectors * kLanes<A>;
  for (int lane = 0; lane < lanes; lane += kLanes<A>) {
    const Vec<A> old_max = load<A>(state->row_max + lane);
    const Vec<A> row_max = column_maximum<A>(s + lane, lanes, num_keys, old_max);
    const IntVec<A> has_outgrown = load<A>(sum + lane) > splat<A>(kLargestSum<A>);
    raise_maximum<A>(lanes, lane, select<A>(has_outgrown, row_max, old_max), head_dim_v, o_t,
                     state);
  }
}

// The common case in one step: dot scores that nothing modifies, p = 2^(s - max) straight from the
// registers. The maximum of earlier keys serves until a sum outgrows it. False, and nothing has
// been done: some row has no maximum yet.
template <class A>
static bool soften_directly(const Group& g, const KeyTile& tile, RowBlock<A> k, int i,
                            ForwardScratch<A>& w) {
  const Panel<A>& panel = w.block->panels[i];
  RowState<A>* state = &w.block->states[i];
  const int64_t num_keys = tile.keys.end - tile.keys.begin, head_dim = g.problem->head_dim;
  const int lanes = lanes_of(panel);
  for (int lane = 0; lane < lanes; lane += kLanes<A>)
    if (any<A>(load<A>(state->row_max + lane) == -splat<A>(A(__builtin_inf())))) return false;
  alignas(kVectorBytes) A sum[kPanelLanes<A>] = {};
  multiply_and_soften<A>(panel.vectors, k, num_keys, panel.q_t, head_dim, state->row_max, sum, w.s);
  IntVec<A> has_outgrown{};
  for (int lane = 0; lane < lanes; lane += kLanes<A>)
    has_outgrown |= load<A>(sum + lane) > splat<A>(kLargestSum<A>);
  if (any<A>(has_outgrown)) {
    multiply_keys<A, DotTerm>(panel.vectors, k, num_keys, panel.q_t, nullptr, head_dim, w.s);
    raise_outgrown<A>(panel.vectors, num_keys, g.problem->head_dim_v, w.s, sum, w.block->o_t[i],
                      state);
    std::memset(sum, 0, sizeof(sum));
    multiply_and_soften<A>(panel.vectors, k, num_keys, panel.q_t, head_dim, state->row_max, sum,
                           w.s);
  }
  for (int lane = 0; lane < lanes; lane += kLanes<A>)
    add_to<A>(state->row_sum + lane, load<A>(sum + lane));
  return true;
}

ATTNEXT_HD bool is_modified(const Problem& p, const KeyTile& tile) {
  return is_masked(p, tile) || p.softcap > 0 || p.alibi_slopes;
}

// s = q kT, modified; p = 2^(s - max); o += p v.
template <class A, class Term>
static void attend_tile(const Group& g, const KeyTile& tile, RowBlock<A> k, RowBlock<A> v, int i,
                        ForwardScratch<A>& w) {
  const Problem& p = *g.problem;
  const Panel<A>& panel = w.block->panels[i];
  RowState<A>* state = &w.block->states[i];
  const int64_t num_keys = tile.keys.end - tile.keys.begin;
  if (!Term::kIsBilinear || is_modified(p, tile) || !soften_directly<A>(g, tile, k, i, w)) {
    compute_scores<A, Term>(g, panel, tile, k, kForwardScale<Term>, ScoreTrace<A>{}, w.s,
                            w.scratch);
    soften<A>(panel.vectors, num_keys, p.head_dim_v, w.s, w.block->o_t[i], state);
  }
  if (p.dropout.probability > 0) drop_weights<A>(g, panel, tile, w.s, w.scratch);
  accumulate<A, DotTerm>(panel.vectors, v, num_keys, p.head_dim_v, w.s, lanes_of(panel), nullptr,
                         w.block->o_t[i]);
}

// The same for a panel of few rows.
template <class A>
static void attend_tile_few(const Group& g, const KeyTile& tile, RowBlock<A> k, RowBlock<A> v,
                            int64_t keys_left, ForwardScratch<A>& w) {
  const Problem& p = *g.problem;
  const Panel<A>& panel = w.block->panels[0];
  const int lanes = lanes_of(panel);
  const int64_t num_keys = tile.keys.end - tile.keys.begin, width = round_up(p.head_dim, kLanes<A>);
  const bool has_next = k.data != w.k && keys_left >= 2 * num_keys;
  const RowBlock<A> next_k =
      has_next ? RowBlock<A>{k.data + num_keys * k.stride, k.stride} : RowBlock<A>{k.data, 0};
  with_few_rows<A>(w.few_rows, [&](auto rows) {
    multiply_few<A, rows.value>(k, num_keys, w.q_rows, width, lanes, v, p.head_dim_v, w.s);
  });
  modify_scores<A>(g, panel, tile, ScaleOn::kQueries, ScoreTrace<A>{}, w.s, w.scratch);
  soften<A>(panel.vectors, num_keys, p.head_dim_v, w.s, w.block->o_t[0], &w.block->states[0]);
  if (p.dropout.probability > 0) drop_weights<A>(g, panel, tile, w.s, w.scratch);
  with_few_rows<A>(w.few_rows, [&](auto rows) {
    accumulate_few<A, rows.value>(v, num_keys, p.head_dim_v, w.s, lanes, next_k, p.head_dim,
                                  w.block->o_t[0]);
  });
}

// The part of `keys` (which begin where a tile does) that some row of the block can see, from the
// beginning of a tile on: tiles lie at fixed positions.
template <class A>
ATTNEXT_HD Span reachable_tiles(const Group& g, const QueryBlock<A>& block, Span keys) {
  const Span all = {block.panels[0].queries.begin, block.panels[block.num_panels - 1].queries.end};
  const Span reachable = reachable_keys(g.mask, all);
  return {max_of(keys.begin, reachable.begin / kTileK * kTileK), min_of(keys.end, reachable.end)};
}

// The block's rows attend `keys`.
template <class A, class Term>
static void attend(const Group& g, Span keys, ForwardScratch<A>& w) {
  const QueryBlock<A>& block = *w.block;
  const Span range = reachable_tiles(g, block, keys);
  const Problem& p = *g.problem;
  const Padding padding_k = w.few_rows && p.head_dim % kLanes<A> ? Padding::kZeros : Padding::kNone;
  const Padding padding_v =
      w.few_rows && p.head_dim_v % kLanes<A> ? Padding::kZeros : Padding::kNone;
  for (int64_t begin = range.begin; begin < range.end; begin += kTileK) {
    const Span tile_keys = {begin, min_of(begin + kTileK, range.end)};
    const RowBlock<A> k = load_keys<A>(g, tile_keys, padding_k, w.k);
    const RowBlock<A> v = load_values<A>(g, tile_keys, padding_v, w.v);
    for (int i = 0; i < block.num_panels; ++i) {
      const KeyTile tile = key_tile(g, block.panels[i], tile_keys);
      if (tile.kind == TileKind::kSkip) continue;
      const int64_t skipped = tile.keys.begin - begin;
      const RowBlock<A> tile_k = {k.data + skipped * k.stride, k.stride};
      const RowBlock<A> tile_v = {v.data + skipped * v.stride, v.stride};
      if (w.few_rows)
        attend_tile_few<A>(g, tile, tile_k, tile_v, range.end - tile.keys.begin, w);
      else
        attend_tile<A, Term>(g, tile, tile_k, tile_v, i, w);
    }
  }
}

// How the rows and keys of a sequence are cut.
struct ForwardCut {
  int64_t blocks;  // of kTileQ rows, at least one
  int64_t splits;  // of kSplitKeys keys
};

template <class A>
static ForwardCut cut_forward(const Problem& p, int64_t sequence) {
  const Mask& m = p.sequences[sequence].mask;
  const int64_t rows = m.seqlen_q * p.group_size;
  const bool has_few_rows = rows > 0 && rows <= kPanelLanes<A>;
  return {max_of(1, divide_up(rows, kTileQ<A>)),
          has_few_rows ? max_of(1, divide_up(m.seqlen_k, kSplitKeys)) : 1};
}

// The state a split leaves behind: a RowState, then o_t of the group's lanes.
template <class A>
static int64_t split_bytes(const Problem& p) {
  Arena counter{nullptr, 0};
  take<RowState<A>>(&counter, 1);
  take<A>(&counter, p.head_dim_v * kPanelLanes<A>);
  return counter.used;
}

template <class A>
struct SplitState {
  RowState<A>* state;
  A* o_t;
};

template <class A>
static SplitState<A> split_at(const Problem& p, char* memory, int64_t item) {
  Arena arena{memory + item * split_bytes<A>(p), 0};
  RowState<A>* state = take<RowState<A>>(&arena, 1);
  return {state, take<A>(&arena, p.head_dim_v * kPanelLanes<A>)};
}

// Rows beyond a sequence's q_lengths exist in memory only.
template <class A>
static void fill_padding(const ForwardParams& params, const Group& g) {
  const Problem& p = params.problem;
  if (p.is_packed) return;
  for (int64_t row = g.num_rows; row < p.seqlen_q * p.group_size; ++row) {
    fill_row<A>(row_pointer(g, params.out, row), params.out, p.head_dim_v, A(0));
    if (is_present(params.lse))
      write_element<A>(row_pointer(g, params.lse, row), dtype_of(params.lse), A(-__builtin_inf()));
  }
}

template <class A>
static void store_block(const ForwardParams& params, const Group& g, ForwardScratch<A>& w) {
  for (int i = 0; i < w.block->num_panels; ++i)
    store_panel<A>(g, w.block->panels[i], w.block->states[i], params, w.block->o_t[i]);
}

template <class A, class Term>
static void forward_item(const ForwardParams& params, const Place& place, char* split_memory,
                         int64_t item, ForwardScratch<A>& w) {
  const Problem& p = params.problem;
  const Group g = group_of(p, place.sequence, place.head_kv);
  const ForwardCut cut = cut_forward<A>(p, place.sequence);
  // The last rows of a causal sequence have the most keys: first, so that the end is shared out
  // evenly.
  const int64_t block = cut.blocks - 1 - place.index / cut.splits, split = place.index % cut.splits;
  if (block == cut.blocks - 1 && split == 0) fill_padding<A>(params, g);
  const Span rows = {block * kTileQ<A>, min_of((block + 1) * kTileQ<A>, g.num_rows)};
  if (rows.begin >= rows.end) return;
  load_block<A, Term>(g, rows, w);
  if (cut.splits == 1) {
    attend<A, Term>(g, {0, g.mask.seqlen_k}, w);
    return store_block<A>(params, g, w);
  }
  attend<A, Term>(g, {split * kSplitKeys, min_of((split + 1) * kSplitKeys, g.mask.seqlen_k)}, w);
  const SplitState<A> out = split_at<A>(p, split_memory, item);
  *out.state = w.block->states[0];
  std::memcpy(out.o_t, w.block->o_t[0], sizeof(A) * p.head_dim_v * lanes_of(w.block->panels[0]));
}

// Joins the splits of one (sequence, key head), in the order of their keys.
template <class A, class Term>
static void join_splits(const ForwardParams& params, const Schedule& items, int64_t sequence,
                        int64_t head_kv, char* split_memory, ForwardScratch<A>& w) {
  const Problem& p = params.problem;
  const Group g = group_of(p, sequence, head_kv);
  const int64_t splits = cut_forward<A>(p, sequence).splits;
  if (splits == 1) return;
  load_block<A, Term>(g, {0, g.num_rows}, w);
  for (int64_t split = 0; split < splits; ++split) {
    const SplitState<A> part =
        split_at<A>(p, split_memory, items.first[sequence] + head_kv * splits + split);
    join_states<A>(lanes_of(w.block->panels[0]), p.head_dim_v, *part.state, part.o_t,
                   &w.block->states[0], w.block->o_t[0]);
  }
  store_block<A>(params, g, w);
}

template <class A, class Term>
static void run_forward(const ForwardParams& params) {
  const Problem& p = params.problem;
  const Memory first(static_cast<int64_t>(sizeof(int64_t)) * (p.batch + 1));
  bool has_splits = false;
  const Schedule items =
      make_schedule(p, reinterpret_cast<int64_t*>(first.data()), [&](int64_t sequence) {
        const ForwardCut cut = cut_forward<A>(p, sequence);
        has_splits = has_splits || cut.splits > 1;
        return cut.blocks * cut.splits;
      });
  const int workers = num_workers(num_items(items), score_flops(p, 2));
  const Scratches<ForwardScratch<A>, carve_forward<A>> scratch(p, workers);
  const Memory splits(has_splits ? split_bytes<A>(p) * num_items(items) : 0);
  run_items(num_items(items), workers, [&](int64_t item, int worker) {
    ForwardScratch<A> w = scratch[worker];
    forward_item<A, Term>(params, place_of(items, item), splits.data(), item, w);
  });
  if (!has_splits) return;
  run_items(p.batch * p.num_heads_kv, workers, [&](int64_t item, int worker) {
    ForwardScratch<A> w = scratch[worker];
    join_splits<A, Term>(params, items, item / p.num_heads_kv, item % p.num_heads_kv, splits.data(),
                         w);
  });
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
