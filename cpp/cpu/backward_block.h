// Backward for one block of query rows against one tile of keys: the five products, and the memory
// they work in.
#pragma once

#include "cpu/relay.h"
#include "cpu/tile/bias_gradient.h"
#include "cpu/tile/store.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

// Which of the five products are asked for, beside the scores; the additive score has its own.
struct ProductsWanted {
  bool dp, dq, dk, dv;
};

ATTNEXT_HD ProductsWanted products_wanted(const BackwardParams& params) {
  const bool dq = is_present(params.dq) || params.dscore_bias, dk = is_present(params.dk);
  const bool has_sums = params.dscale || params.dalibi_slopes || params.dsinks || params.dweight ||
                        is_present(params.dbias);
  return {dq || dk || has_sums, dq, dk, is_present(params.dv)};
}

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
  ProductsWanted wanted;
};

template <class A>
struct BackwardScratch {
  GradientPanel<A>* panels;
  int num_panels;
  A *q_t[kMaxPanels], *weight_t[kMaxPanels];
  A *q, *dout;      // the block's rows as they are, padded: [kTileQ, padded]
  A* dq;            // likewise, what this item adds to them
  A *k, *v;         // the chunk's rows, where they cannot be read in place
  Pair* k_pairs;    // of paired terms: the chunk's keys, interleaved
  Pair* row_pairs;  // and a panel's rows on their way to q_t and dout_t
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
  w.k_pairs = take<Pair>(arena, is_paired(p) ? kChunkKeys / 2 * d : 0);
  w.row_pairs =
      take<Pair>(arena, is_paired(p) ? lanes * paired_width(max_of(p.head_dim, p.head_dim_v)) : 0);
  w.dk = take<A>(arena, kChunkKeys * d);
  w.dv = take<A>(arena, kChunkKeys * dv);
  w.p = take<A>(arena, kGradientTileK * kTileQ<A>);
  w.ds = take<A>(arena, kGradientTileK * kTileQ<A>);
  w.bias_keys = take<A>(arena, p.group_size * kChunkKeys);
  w.weight = take<A>(arena, p.weight ? p.group_size * d : 0);
  w.dweight = take<double>(arena, p.weight ? p.group_size * d : 0);
  for (A** tile : {&w.tiles.p, &w.tiles.ds, &w.tiles.raw, &w.tiles.softcap_slope, &w.tiles.dropout})
    *tile = take<A>(arena, kGradientTileK * lanes);
  w.tiles.ds_pairs = take<Pair>(arena, is_paired(p) ? kGradientTileK / 2 * lanes : 0);
  w.tiles.modifiers = take_modifiers<A>(p, arena);
  return w;
}

template <class A>
ATTNEXT_HD int64_t row_base(const BackwardSums<A>& sums, const Group& g) {
  return sums.queries_before[g.sequence] * g.problem->num_heads_q + g.head_kv * g.num_rows;
}

// The block's rows of q and dout as the products that sum over rows read them.
template <class A, class Term>
static void load_rows_of_block(const BackwardParams& params, const Group& g, Span rows,
                               BackwardScratch<A>& w) {
  const Problem& p = params.problem;
  const TensorView& dout = params.dout;
  const int64_t width = padded<A>(p.head_dim), width_v = padded<A>(p.head_dim_v);
  if constexpr (kIsPaired<Term>) {
    const int64_t count = rows.end - rows.begin;
    interleave_rows(count, p.q.strides[3], p.head_dim, width, reinterpret_cast<Pair*>(w.q),
                    [&](int64_t i) { return row_pointer(g, p.q, rows.begin + i); });
    interleave_rows(count, dout.strides[3], p.head_dim_v, width_v, reinterpret_cast<Pair*>(w.dout),
                    [&](int64_t i) { return row_pointer(g, dout, rows.begin + i); });
    return;
  }
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    A* q = w.q + (row - rows.begin) * width;
    load_row<A>(row_pointer(g, p.q, row), dtype_of(p.q), p.q.strides[3], p.head_dim, q);
    if (p.score == Score::kCosine) normalise_row<A>(q, width);
    if (p.score_bias)
      for (int64_t d = 0; d < p.head_dim; ++d)
        q[d] += static_cast<A>(p.score_bias[head_of(g, row) * p.head_dim + d]);
    load_row<A>(row_pointer(g, dout, row), dtype_of(dout), dout.strides[3], p.head_dim_v,
                w.dout + (row - rows.begin) * width_v);
  }
}

// A block's queries, outputs' gradients and row constants, transposed and as they are.
template <class A, class Term>
static void load_gradient_block(const BackwardParams& params, const BackwardSums<A>& sums,
                                const Group& g, Span rows, BackwardScratch<A>& w) {
  const Problem& p = params.problem;
  const TensorView& dout = params.dout;
  w.num_panels = static_cast<int>(divide_up(rows.end - rows.begin, kPanelLanes<A>));
  for (int i = 0; i < w.num_panels; ++i) {
    GradientPanel<A>& panel = w.panels[i];
    const int64_t begin = rows.begin + i * kPanelLanes<A>;
    describe_rows<A>(g, {begin, min_of(begin + kPanelLanes<A>, rows.end)}, &panel.panel);
    if constexpr (kIsPaired<Term>) {
      load_transposed_pairs(g, panel.panel, p.q, p.head_dim, w.row_pairs,
                            reinterpret_cast<Pair*>(w.q_t[i]));
      load_transposed_pairs(g, panel.panel, dout, p.head_dim_v, w.row_pairs,
                            reinterpret_cast<Pair*>(panel.dout_t));
    } else {
      load_queries<A>(g, ScaleOn::kScores, w.q_t[i], w.weight_t[i], &panel.panel);
      load_transposed<A>(
          lane_rows(panel.panel, dout, 3, [&](int64_t row) { return row_pointer(g, dout, row); }),
          panel.panel.vectors, 0, p.head_dim_v, panel.dout_t);
    }
    std::memset(panel.dq_t, 0, sizeof(A) * p.head_dim * lanes_of(panel.panel));
    std::memset(panel.sums, 0, sizeof(panel.sums));
    for (int lane = 0; lane < lanes_of(panel.panel); ++lane) {
      const int64_t row = row_base(sums, g) + min_of(begin + lane, rows.end - 1);
      panel.lse_log2[lane] = sums.lse_log2[row];
      panel.lse_rest[lane] = sums.lse_rest[row];
      panel.delta[lane] = sums.delta[row];
    }
  }
  load_rows_of_block<A, Term>(params, g, rows, w);
}

// Slopes that read k read numbers.
template <class A>
ATTNEXT_HD RowBlock<A> plain_rows(RowBlock<A> k) {
  return k;
}
ATTNEXT_HD RowBlock<float> plain_rows(RowBlock<Pair>) { return {}; }

// The chunk's rows, or those of a tile of it, as the products read them.
template <class A, class Term>
struct KeyRows {
  RowBlock<Operand<Term, A>> k, v;   // for s and dp
  RowBlock<Operand<Term, A>> k_sum;  // for dq, which sums over keys
};

template <class A, class Term>
ATTNEXT_HD KeyRows<A, Term> rows_from(const KeyRows<A, Term>& rows, int64_t key) {
  return {{rows.k.data + key * rows.k.stride, rows.k.stride},
          {rows.v.data + key * rows.v.stride, rows.v.stride},
          {rows.k_sum.data + key / kPack<Term> * rows.k_sum.stride, rows.k_sum.stride}};
}

template <class A, class Term>
static KeyRows<A, Term> load_chunk(const Group& g, Span chunk, BackwardScratch<A>& w) {
  const Problem& p = *g.problem;
  if constexpr (kIsPaired<Term>) {
    return {load_row_pairs(g, p.k, p.head_dim, chunk, reinterpret_cast<Pair*>(w.k)),
            load_row_pairs(g, p.v, p.head_dim_v, chunk, reinterpret_cast<Pair*>(w.v)),
            load_interleaved_rows(g, p.k, p.head_dim, chunk, w.k_pairs)};
  } else {
    const Padding padding = Term::kIsBilinear ? Padding::kNone : Padding::kZeros;
    const RowBlock<A> k = load_keys<A>(g, chunk, padding, w.k);
    return {k, load_values<A>(g, chunk, Padding::kNone, w.v), k};
  }
}

// Where only some vectors see a part of the tile, the others have p = ds = 0, and no trace.
template <class A, class Term>
static void clear_tile(const Panel<A>& panel, int64_t num_keys, const Modifiers<A>& m, A* p, A* ds,
                       const GradientRows<A, Term>& rows) {
  const auto lanes = static_cast<size_t>(lanes_of(panel));
  for (int64_t key = 0; key < num_keys; ++key) {
    for (auto* out : {rows.p, rows.ds})
      std::memset(out + key * rows.stride, 0, sizeof(*out) * lanes);
    for (A* out : {p, ds, m.trace.raw, m.trace.softcap_slope})
      if (out) std::memset(out + key * lanes_of(panel), 0, sizeof(A) * lanes);
  }
}

// One panel against one key tile: p and ds of its rows, their dq, and their part of the sums on
// scores.
template <class A, class Term>
static void differentiate_tile(const BackwardSums<A>& sums, const RowSumsWanted& wanted,
                               const Group& g, const KeyTile& tile, const KeyRows<A, Term>& keys,
                               int64_t chunk_begin, BackwardScratch<A>& w, int panel_index,
                               const GradientRows<A, Term>& rows) {
  GradientPanel<A>* panel = &w.panels[panel_index];
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
  A *p_tile = has_dropout || is_summed || kIsPaired<Term> ? t.p : nullptr,
    *ds_tile = is_summed ? t.ds : nullptr;
  if (tile.kind == TileKind::kPartial || m.sees_nothing)
    clear_tile(panel->panel, num_keys, m, p_tile, ds_tile, rows);
  if (m.sees_nothing) return;
  Segment segments[kMaxSegments];
  const int num_segments = cut_tile(g, panel->panel, tile, segments);
  for (int n = 0; n < num_segments; ++n) {
    const Segment& part = segments[n];
    const Modifiers<A> modifiers = modifiers_of(m, part);
    multiply_keys<A, Term>(part.vectors, keys.k, part.keys, operands<Term>(w.q_t[panel_index]),
                           w.weight_t[panel_index], divide_up(p.head_dim, kPack<Term>),
                           RebuildWeights<A, Term>{modifiers, panel->lse_log2, panel->lse_rest,
                                                   dropout, p_tile, rows});
    if (!sums.wanted.dp) continue;
    multiply_keys<A, PlainDot<Term>>(
        part.vectors, keys.v, part.keys, operands<Term>(panel->dout_t), panel->dout_t,
        divide_up(p.head_dim_v, kPack<Term>),  // dp = dout vT
        DifferentiateSoftmax<A, Term>{modifiers, panel->delta, panel->panel.scale, dropout, p_tile,
                                      ds_tile, modifiers.begin || modifiers.mask || modifiers.bias,
                                      rows});
    if (!sums.wanted.dq) continue;
    const Span sum_keys = {part.keys.begin / kPack<Term>, divide_up(part.keys.end, kPack<Term>)};
    if constexpr (kIsPaired<Term>)  // dq += ds k
      accumulate<A, Term>(part.vectors, keys.k_sum, sum_keys, p.head_dim, rows.ds_pairs,
                          lanes_of(panel->panel), nullptr, panel->dq_t);
    else if constexpr (!Term::kHasWeight)
      accumulate<A, Term>(part.vectors, keys.k_sum, sum_keys, p.head_dim, rows.ds, rows.stride,
                          w.q_t[panel_index], panel->dq_t);
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
template <class A, class S>
static void clear_unseen(const Panel<A>& panel, Span keys, const KeyTile& tile, int64_t stride,
                         S* p, S* ds) {
  const bool is_skipped = tile.kind == TileKind::kSkip;
  for (int64_t key = keys.begin; key < keys.end; ++key) {
    if (!is_skipped && key >= tile.keys.begin && key < tile.keys.end) continue;
    for (S* rows : {p, ds})
      std::memset(rows + (key - keys.begin) * stride, 0, sizeof(S) * lanes_of(panel));
  }
}

// The block's rows against one key tile of the chunk: all five products.
template <class A, class Term>
static void differentiate_block(const BackwardSums<A>& sums, const RowSumsWanted& wanted,
                                const Group& g, Span rows, Span chunk, Span keys,
                                const KeyRows<A, Term>& key_rows, BackwardScratch<A>& w) {
  using S = Stored<A, Term>;
  const Problem& p = *g.problem;
  const int64_t stride =
      (w.num_panels - 1) * kPanelLanes<A> + lanes_of(w.panels[w.num_panels - 1].panel);
  S *all_p = reinterpret_cast<S*>(w.p), *all_ds = reinterpret_cast<S*>(w.ds);
  Span seeing = {rows.end - rows.begin, 0};  // the block's rows whose panels see some of the keys
  for (int i = 0; i < w.num_panels; ++i) {
    const Panel<A>& panel = w.panels[i].panel;
    const KeyTile tile = key_tile(g, panel, keys);
    S *p_rows = all_p + i * kPanelLanes<A>, *ds_rows = all_ds + i * kPanelLanes<A>;
    clear_unseen<A>(panel, keys, tile, stride, p_rows, ds_rows);
    if (tile.kind == TileKind::kSkip) continue;
    seeing = {min_of(seeing.begin, i * kPanelLanes<A>), panel.rows.end - rows.begin};
    const int64_t skipped = tile.keys.begin - keys.begin;
    differentiate_tile<A, Term>(
        sums, wanted, g, tile, rows_from(key_rows, skipped), chunk.begin, w, i,
        {p_rows + skipped * stride, ds_rows + skipped * stride, stride, w.tiles.ds_pairs});
  }
  if (seeing.begin >= seeing.end) return;
  const int64_t first = keys.begin - chunk.begin, num_keys = keys.end - keys.begin;
  const int64_t width = padded<A>(p.head_dim), width_v = padded<A>(p.head_dim_v);
  // Of rows in pairs, both are read as one operand.
  const int64_t row = seeing.begin / kPack<Term>, row_stride = stride / kPack<Term>;
  const int64_t num_rows = divide_up(seeing.end - seeing.begin, kPack<Term>);
  if (sums.wanted.dv)
    accumulate_key_gradient<A, PlainDot<Term>>(
        reinterpret_cast<const Operand<Term, A>*>(all_p) + row, row_stride, num_keys,
        operands<Term>(w.dout) + row * width_v, width_v, num_rows, {},
        w.dv + first * width_v);  // dv += pT dout
  if constexpr (Term::kHasWeight) {
    if (sums.wanted.dp)
      spread_additive<A>(p, rows, num_keys, key_rows.k, stride, w.dk + first * width, w);
  } else if (sums.wanted.dk) {
    accumulate_key_gradient<A, Term>(  // dk += dsT q
        reinterpret_cast<const Operand<Term, A>*>(all_ds) + row, row_stride, num_keys,
        operands<Term>(w.q) + row * width, width, num_rows, plain_rows(key_rows.k),
        w.dk + first * width);
  }
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
