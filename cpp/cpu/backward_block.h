// Backward for one block of query rows against one tile of keys: the five products, and the memory
// they work in.
#pragma once

#include "cpu/relay.h"
#include "cpu/tile/bias_gradient.h"
#include "cpu/tile/store.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

// Sums shared by all items, in the accumulator type. Rows of a group lie together: row_base(..) +
// row.
template <class A>
struct BackwardSums {
  int64_t* queries_before;  // [batch + 1]: queries of the sequences before
  int64_t* keys_before;     // [batch + 1]
  int64_t* progress;        // [items]
  A *lse_log2, *lse_rest;   // [rows], see GradientPanel
  A* delta;                 // [rows]
  double* rows;             // [rows, kNumRowSums], null where not wanted
  A* bias_keys;             // [heads x keys], null where not wanted
  double* weight;           // [items, group_size, padded head_dim], null where not wanted
  A* dq;                    // [rows, padded head_dim], null: dq itself is added to
  TensorView dbias;         // accumulators of a dense bias gradient, as a broadcast view
  BiasSum bias_sum;
};

template <class A>
struct BackwardScratch {
  GradientPanel<A>* panels;
  int num_panels;
  A *q_t[kMaxPanels], *weight_t[kMaxPanels];
  A *q, *dout;      // the block's rows as they are, padded: [kTileQ, padded]
  A* dq;            // likewise, what this item adds to them
  A *k, *v;         // the chunk's rows, where they cannot be read in place
  A *dk, *dv;       // [kChunkKeys, padded]
  A *p, *ds;        // [kTileK][lanes of all panels]
  A* bias_keys;     // [group_size, kChunkKeys]
  A* weight;        // [group_size, padded head_dim] of the additive score
  double* dweight;  // likewise
  GradientTiles<A> tiles;
};

template <class A>
ATTNEXT_HD int64_t padded(int64_t elements) {
  return round_up(elements, kLanes<A>);
}

template <class A>
static BackwardScratch<A> carve_backward(const Problem& p, Arena* arena) {
  const int64_t d = padded<A>(p.head_dim), dv = padded<A>(p.head_dim_v), lanes = kPanelLanes<A>;
  BackwardScratch<A> w;
  w.panels = take<GradientPanel<A>>(arena, kMaxPanels);
  for (int i = 0; i < kMaxPanels; ++i) {
    w.q_t[i] = take<A>(arena, d * lanes);
    w.weight_t[i] = take<A>(arena, p.weight ? d * lanes : 0);
    A* dout_t = take<A>(arena, dv * lanes);
    A* dq_t = take<A>(arena, d * lanes);
    if (!arena->base) continue;
    w.panels[i].dout_t = dout_t;
    w.panels[i].dq_t = dq_t;
  }
  w.q = take<A>(arena, kTileQ<A> * d);
  w.dout = take<A>(arena, kTileQ<A> * dv);
  w.dq = take<A>(arena, kTileQ<A> * d);
  w.k = take<A>(arena, kChunkKeys * d);
  w.v = take<A>(arena, kChunkKeys * dv);
  w.dk = take<A>(arena, kChunkKeys * d);
  w.dv = take<A>(arena, kChunkKeys * dv);
  w.p = take<A>(arena, kGradientTileK * kTileQ<A>);
  w.ds = take<A>(arena, kGradientTileK * kTileQ<A>);
  w.bias_keys = take<A>(arena, p.group_size * kChunkKeys);
  w.weight = take<A>(arena, p.weight ? p.group_size * d : 0);
  w.dweight = take<double>(arena, p.weight ? p.group_size * d : 0);
  for (A** tile : {&w.tiles.p, &w.tiles.ds, &w.tiles.raw, &w.tiles.softcap_slope,
                   &w.tiles.dropout})
    *tile = take<A>(arena, kGradientTileK * lanes);
  w.tiles.modifiers = take_modifiers<A>(p, arena);
  return w;
}

template <class A>
ATTNEXT_HD int64_t row_base(const BackwardSums<A>& sums, const Group& g) {
  return sums.queries_before[g.sequence] * g.problem->num_heads_q + g.head_kv * g.num_rows;
}

// A block's queries, outputs' gradients and row constants, transposed and as they are.
template <class A>
static void load_gradient_block(const BackwardParams& params, const BackwardSums<A>& sums,
                                const Group& g, Span rows, BackwardScratch<A>& w) {
  const Problem& p = params.problem;
  const TensorView& dout = params.dout;
  w.num_panels = static_cast<int>(divide_up(rows.end - rows.begin, kPanelLanes<A>));
  for (int i = 0; i < w.num_panels; ++i) {
    GradientPanel<A>& panel = w.panels[i];
    const int64_t begin = rows.begin + i * kPanelLanes<A>;
    describe_rows<A>(g, {begin, min_of(begin + kPanelLanes<A>, rows.end)}, &panel.panel);
    load_queries<A>(g, ScaleOn::kScores, w.q_t[i], w.weight_t[i], &panel.panel);
    load_transposed<A>(
        lane_rows(panel.panel, dout, 3, [&](int64_t row) { return row_pointer(g, dout, row); }),
        panel.panel.vectors, 0, p.head_dim_v, panel.dout_t);
    std::memset(panel.dq_t, 0, sizeof(A) * p.head_dim * lanes_of(panel.panel));
    std::memset(panel.sums, 0, sizeof(panel.sums));
    for (int lane = 0; lane < lanes_of(panel.panel); ++lane) {
      const int64_t row = row_base(sums, g) + min_of(begin + lane, rows.end - 1);
      panel.lse_log2[lane] = sums.lse_log2[row];
      panel.lse_rest[lane] = sums.lse_rest[row];
      panel.delta[lane] = sums.delta[row];
    }
  }
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    A* q = w.q + (row - rows.begin) * padded<A>(p.head_dim);
    load_row<A>(row_pointer(g, p.q, row), dtype_of(p.q), p.q.strides[3], p.head_dim, q);
    if (p.score == Score::kCosine) normalise_row<A>(q, padded<A>(p.head_dim));
    if (p.score_bias)
      for (int64_t d = 0; d < p.head_dim; ++d)
        q[d] += static_cast<A>(p.score_bias[head_of(g, row) * p.head_dim + d]);
    load_row<A>(row_pointer(g, dout, row), dtype_of(dout), dout.strides[3], p.head_dim_v,
                w.dout + (row - rows.begin) * padded<A>(p.head_dim_v));
  }
}

// Where only some vectors see a part of the tile, the others have p = ds = 0, and no trace.
template <class A>
static void clear_tile(const Panel<A>& panel, int64_t num_keys, const Modifiers<A>& m, A* p, A* ds,
                       const GradientRows<A>& rows) {
  const size_t bytes = sizeof(A) * static_cast<size_t>(lanes_of(panel));
  for (int64_t key = 0; key < num_keys; ++key) {
    for (A* out : {rows.p, rows.ds}) std::memset(out + key * rows.stride, 0, bytes);
    for (A* out : {p, ds, m.trace.raw, m.trace.softcap_slope})
      if (out) std::memset(out + key * lanes_of(panel), 0, bytes);
  }
}

// One panel against one key tile: p and ds of its rows, their dq, and their part of the sums on
// scores.
template <class A, class Term>
static void differentiate_tile(const BackwardSums<A>& sums, const RowSumsWanted& wanted,
                               const Group& g, const KeyTile& tile, RowBlock<A> k, RowBlock<A> v,
                               int64_t chunk_begin, BackwardScratch<A>& w, GradientPanel<A>* panel,
                               const GradientRows<A>& rows) {
  const Problem& p = *g.problem;
  const GradientTiles<A>& t = w.tiles;
  const int64_t num_keys = tile.keys.end - tile.keys.begin;
  const bool needs_raw = wanted.scale || p.score == Score::kNegL2;
  const bool has_dropout = p.dropout.probability > 0;
  const bool is_summed = wanted.any || sums.bias_sum != BiasSum::kNone;
  const Modifiers<A> m = prepare_modifiers<A>(
      g, panel->panel, tile, ScaleOn::kScores,
      {needs_raw ? t.raw : nullptr, p.softcap > 0 ? t.softcap_slope : nullptr}, t.modifiers);
  if (has_dropout) load_dropout<A>(g, panel->panel, tile, t.dropout);
  const A* dropout = has_dropout ? t.dropout : nullptr;
  A *p_tile = has_dropout || is_summed ? t.p : nullptr, *ds_tile = is_summed ? t.ds : nullptr;
  if (tile.kind == TileKind::kPartial) clear_tile(panel->panel, num_keys, m, p_tile, ds_tile, rows);
  Segment segments[kMaxSegments];
  const int num_segments = cut_tile(g, panel->panel, tile, segments);
  for (int n = 0; n < num_segments; ++n) {
    const Segment& part = segments[n];
    const Modifiers<A> modifiers = modifiers_of(m, part);
    multiply_keys<A, Term>(part.vectors, k, part.keys, panel->panel.q_t, panel->panel.weight_t,
                           p.head_dim,
                           RebuildWeights<A>{modifiers, panel->lse_log2, panel->lse_rest, dropout,
                                             p_tile, rows});
    multiply_keys<A, DotTerm>(part.vectors, v, part.keys, panel->dout_t, panel->dout_t,
                              p.head_dim_v,  // dp = dout vT
                              DifferentiateSoftmax<A>{modifiers, panel->delta, panel->panel.scale,
                                                      dropout, p_tile, ds_tile,
                                                      modifiers.begin || modifiers.mask ||
                                                          modifiers.bias,
                                                      rows});
    if constexpr (!Term::kHasWeight)
      accumulate<A, Term>(part.vectors, k, part.keys, p.head_dim, rows.ds, rows.stride,
                          panel->panel.q_t, panel->dq_t);  // dq += ds k
  }
  if (sums.bias_sum == BiasSum::kDense) add_bias_tile<A>(g, panel->panel, tile, t.ds, sums.dbias);
  if (sums.bias_sum == BiasSum::kPerKey)
    add_bias_keys<A>(g, panel->panel, tile, t.ds, chunk_begin, w.bias_keys);
  if (wanted.any) sum_rows<A>(g, tile, t, wanted, panel);
}

// dq, dk and dweight of the additive score: one tanh serves all three. Lanes are d.
template <class A>
static void spread_additive(const Problem& p, Span rows, int64_t num_keys, RowBlock<A> k,
                            int64_t stride, A* dk, BackwardScratch<A>& w) {
  const int64_t width = padded<A>(p.head_dim);
  for (int64_t d = 0; d < width; d += kLanes<A>) {
    for (int64_t row = 0; row < rows.end - rows.begin; ++row) {
      const int64_t head = (rows.begin + row) % p.group_size;
      const Vec<A> weight = load<A>(w.weight + head * width + d),
                   q = load<A>(w.q + row * width + d);
      Vec<A> dq{}, dweight{};
      for (int64_t key = 0; key < num_keys; ++key) {
        const A ds = w.ds[key * stride + row];
        if (ds == 0) continue;  // masked pairs need no tanh
        const Tanh<A> t = tanh_with_slope<A>(q + load<A>(k.data + key * k.stride + d));
        const Vec<A> change = ds * AdditiveTerm::slope(t.slope, weight);
        dweight += ds * t.value;
        dq += change;
        store<A>(dk + key * width + d, load<A>(dk + key * width + d) + change);
      }
      add_to<A>(w.dq + row * width + d, dq);
      for (int i = 0; i < kLanes<A>; ++i)
        w.dweight[head * width + d + i] += static_cast<double>(dweight[i]);
    }
  }
}

// Keys of a tile that a panel does not see get p = ds = 0 from its rows.
template <class A>
static void clear_unseen(const Panel<A>& panel, Span keys, const KeyTile& tile, int64_t stride,
                         A* p, A* ds) {
  const bool is_skipped = tile.kind == TileKind::kSkip;
  for (int64_t key = keys.begin; key < keys.end; ++key) {
    if (!is_skipped && key >= tile.keys.begin && key < tile.keys.end) continue;
    for (A* rows : {p, ds})
      std::memset(rows + (key - keys.begin) * stride, 0, sizeof(A) * lanes_of(panel));
  }
}

// The block's rows against one key tile of the chunk: all five products.
template <class A, class Term>
static void differentiate_block(const BackwardSums<A>& sums, const RowSumsWanted& wanted,
                                const Group& g, Span rows, Span chunk, Span keys, RowBlock<A> k,
                                RowBlock<A> v, BackwardScratch<A>& w) {
  const Problem& p = *g.problem;
  const int64_t stride =
      (w.num_panels - 1) * kPanelLanes<A> + lanes_of(w.panels[w.num_panels - 1].panel);
  Span seeing = {rows.end - rows.begin, 0};  // the block's rows whose panels see some of the keys
  for (int i = 0; i < w.num_panels; ++i) {
    GradientPanel<A>& panel = w.panels[i];
    const KeyTile tile = key_tile(g, panel.panel, keys);
    A *p_rows = w.p + i * kPanelLanes<A>, *ds_rows = w.ds + i * kPanelLanes<A>;
    clear_unseen<A>(panel.panel, keys, tile, stride, p_rows, ds_rows);
    if (tile.kind == TileKind::kSkip) continue;
    seeing = {min_of(seeing.begin, i * kPanelLanes<A>), panel.panel.rows.end - rows.begin};
    const int64_t skipped = tile.keys.begin - keys.begin;
    const RowBlock<A> tile_k = {k.data + skipped * k.stride, k.stride};
    differentiate_tile<A, Term>(sums, wanted, g, tile, tile_k,
                                {v.data + skipped * v.stride, v.stride}, chunk.begin, w, &panel,
                                {p_rows + skipped * stride, ds_rows + skipped * stride, stride});
  }
  if (seeing.begin >= seeing.end) return;
  const int64_t first = keys.begin - chunk.begin, num_keys = keys.end - keys.begin;
  const int64_t num_rows = seeing.end - seeing.begin;
  const int64_t width = padded<A>(p.head_dim), width_v = padded<A>(p.head_dim_v);
  accumulate_key_gradient<A, DotTerm>(w.p + seeing.begin, stride, num_keys,
                                      w.dout + seeing.begin * width_v, width_v, num_rows, {},
                                      w.dv + first * width_v);  // dv += pT dout
  if constexpr (Term::kHasWeight)
    spread_additive<A>(p, rows, num_keys, k, stride, w.dk + first * width, w);
  else
    accumulate_key_gradient<A, Term>(w.ds + seeing.begin, stride, num_keys,
                                     w.q + seeing.begin * width, width, num_rows, k,
                                     w.dk + first * width);  // dk += dsT q
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
