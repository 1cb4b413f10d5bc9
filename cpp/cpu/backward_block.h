// Backward for one block of query rows against one tile of keys: the five products.
#pragma once

#include "cpu/backward_load.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

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

template <class Term, class A>
static void differentiate_plain(const Problem& p, const Segment& part, const KeyRows<A, Term>& keys,
                                const GradientPanel<A>& panel, GradientRows<A, Term> rows,
                                RowsAhead* ahead) {
  const int64_t lane = part.vectors.first * kLanes<A>;
  rows.p += lane;
  rows.ds += lane;
  if (rows.ds_pairs) rows.ds_pairs += lane;
  differentiate_plain<A, Term>(
      part.vectors.count, part.keys,
      {keys.k, keys.v, operands<Term>(panel.panel.q_t) + lane, operands<Term>(panel.dout_t) + lane,
       divide_up(p.head_dim, kPack<Term>), divide_up(p.head_dim_v, kPack<Term>),
       part.vectors.stride, panel.panel.scale + lane, panel.lse_log2 + lane, panel.delta + lane,
       rows, ahead});
}

// p and ds of one panel's rows and part of a key tile.
template <class A, class Term>
static void differentiate_segment(const BackwardSums<A>& sums, const Problem& p,
                                  const Segment& part, const Modifiers<A>& m, const A* dropout,
                                  A* p_tile, A* ds_tile, const KeyRows<A, Term>& keys,
                                  const GradientPanel<A>& panel, BackwardScratch<A>& w,
                                  const GradientRows<A, PlainDot<Term>>& rows) {
  if constexpr (Term::kIsBilinear)
    if (sums.wanted.dp && is_plain(m, dropout, ds_tile) &&
        (w.riding_scale > 0 || has_loaded_rows<A, Term>(p, sums)))
      return differentiate_plain<Term>(p, part, keys, panel, rows, w.ahead);
  multiply_keys<A, Term>(
      part.vectors, keys.k, part.keys, operands<Term>(panel.panel.q_t), panel.panel.weight_t,
      divide_up(p.head_dim, kPack<Term>),
      RebuildWeights<A, Term>{m, panel.lse_log2, panel.lse_rest, dropout, p_tile, rows, w.ahead});
  if (!sums.wanted.dp) return;
  multiply_keys<A, PlainDot<Term>>(
      part.vectors, keys.v, part.keys, operands<Term>(panel.dout_t), panel.dout_t,
      divide_up(p.head_dim_v, kPack<Term>),  // dp = dout vT
      DifferentiateSoftmax<A, PlainDot<Term>>{m, panel.delta, panel.ds_scale, dropout, p_tile,
                                              ds_tile, m.begin || m.mask || m.bias, rows,
                                              w.ahead + 2});
}

// dq += ds k, of one panel and part of a key tile.
template <class A, class Term>
static void accumulate_dq(const Problem& p, const Segment& part, const KeyRows<A, Term>& keys,
                          const GradientRows<A, PlainDot<Term>>& rows,
                          const GradientPanel<A>& panel) {
  if constexpr (kIsPaired<Term>)
    accumulate<A, Term>(part.vectors, keys.k_sum,
                        {part.keys.begin / 2, divide_up(part.keys.end, 2)}, p.head_dim,
                        rows.ds_pairs, lanes_of(panel.panel), nullptr, panel.dq_t);
  else if constexpr (!Term::kHasWeight)
    accumulate<A, Term>(part.vectors, keys.k_sum, part.keys, p.head_dim, rows.ds, rows.stride,
                        panel.panel.q_t, panel.dq_t);
}

// What the gradients of scores themselves are added to.
template <class A>
static void sum_scores(const BackwardSums<A>& sums, const RowSumsWanted& wanted, const Group& g,
                       const KeyTile& tile, int64_t chunk_begin, BackwardScratch<A>& w,
                       GradientPanel<A>* panel) {
  const A* ds = w.tiles.ds;
  put_bias_tile<A>(g, panel->panel, tile, ds, sums.bias_sum, sums.dbias);
  if (sums.bias_sum == BiasSum::kPerKey)
    add_bias_keys<A>(g, panel->panel, tile, ds, chunk_begin, w.bias_keys);
  if (wanted.any) sum_rows<A>(g, tile, w.tiles, wanted, panel);
}

// One panel against one key tile: p and ds of its rows, their dq, and their part of the sums on
// scores.
template <class A, class Term>
static void differentiate_tile(const BackwardSums<A>& sums, const RowSumsWanted& wanted,
                               const Group& g, const KeyTile& tile, const KeyRows<A, Term>& keys,
                               int64_t chunk_begin, BackwardScratch<A>& w, int panel_index,
                               const GradientRows<A, PlainDot<Term>>& rows) {
  GradientPanel<A>* panel = &w.panels[panel_index];
  const Problem& p = *g.problem;
  const GradientTiles<A>& t = w.tiles;
  const int64_t num_keys = tile.keys.end - tile.keys.begin;
  const bool needs_raw = wanted.scale || p.score == Score::kNegL2;
  const bool has_dropout = p.dropout.probability > 0, is_last = panel_index + 1 == w.num_panels;
  const int64_t next = tile.keys.end;
  const bool is_summed = wanted.any || sums.bias_sum != BiasSum::kNone;
  Modifiers<A> m = prepare_modifiers<A>(
      g, panel->panel, tile,
      has_loaded_rows<A, Term>(p, sums) ? ScaleOn::kQueries : ScaleOn::kScores,
      {needs_raw ? t.raw : nullptr, p.softcap > 0 ? t.softcap_slope : nullptr}, t.modifiers);
  prefetch_modifiers<A>(
      g, tile, w.panels[is_last ? 0 : panel_index + 1].panel,
      is_last ? Span{next, min_of(next + gradient_tile_k(p), g.mask.seqlen_k)} : tile.keys,
      t.modifiers, &m);
  if (has_dropout)
    spread_factors(load_dropout(g, panel->panel, tile, t.kept), lanes_of(panel->panel), num_keys,
                   t.dropout);
  A *p_tile = has_dropout || wanted.any || kIsPaired<Term> ? t.p : nullptr,
    *ds_tile = is_summed ? t.ds : nullptr;
  if (tile.kind == TileKind::kPartial || m.sees_nothing)
    clear_tile(panel->panel, num_keys, m, p_tile, ds_tile, rows);
  if (m.sees_nothing)
    return put_bias_tile<A>(g, panel->panel, tile, ds_tile, sums.bias_sum, sums.dbias);
  Segment segments[kMaxSegments];
  int num_segments = cut_tile(g, panel->panel, tile, segments);
  for (int n = 0; n < num_segments; ++n)
    differentiate_segment(sums, p, segments[n], modifiers_of(m, segments[n]),
                          has_dropout ? t.dropout : nullptr, p_tile, ds_tile, keys, *panel, w,
                          rows);
  num_segments = join_segments(segments, num_segments);
  for (int n = 0; n < num_segments && sums.wanted.dq; ++n)
    accumulate_dq(p, segments[n], keys, rows, *panel);
  sum_scores(sums, wanted, g, tile, chunk_begin, w, panel);
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
                   q = load_unaligned<A>(w.q + row * width + d);
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
  if (!is_skipped && contains(tile.keys, keys)) return;
  for (int64_t key = keys.begin; key < keys.end; ++key) {
    if (!is_skipped && key >= tile.keys.begin && key < tile.keys.end) continue;
    for (S* rows : {p, ds})
      std::memset(rows + (key - keys.begin) * stride, 0, sizeof(S) * lanes_of(panel));
  }
}

// dv += pT dout and dk += dsT q: `keys`, of the tile that begins at `tile_begin`, and the rows (of
// the block) that see them.
template <class A, class Term>
static void sum_over_rows(const Group& g, ProductsWanted wanted, Span rows, Span keys,
                          int64_t tile_begin, int64_t chunk_begin, int64_t stride,
                          RowBlock<Operand<Term, A>> k, BackwardScratch<A>& w) {
  if (rows.begin >= rows.end) return;
  const Problem& p = *g.problem;
  const int64_t width = padded<A>(p.head_dim), width_v = padded<A>(p.head_dim_v);
  const int64_t num_keys = keys.end - keys.begin, in_chunk = keys.begin - chunk_begin;
  // Of rows in pairs, both are read as one operand.
  const int64_t row = rows.begin / kPack<Term>, row_stride = stride / kPack<Term>;
  const int64_t num_rows = divide_up(rows.end, kPack<Term>) - row;
  const int64_t at = (keys.begin - tile_begin) * row_stride + row;
  if (wanted.dv)
    accumulate_key_gradient<A, PlainDot<Term>>(operands<Term>(w.p) + at, row_stride, num_keys,
                                               operands<Term>(w.dout) + row * width_v, p.head_dim_v,
                                               width_v, num_rows, {}, w.dv + in_chunk * width_v);
  if constexpr (!Term::kHasWeight) {
    if (wanted.dk)
      accumulate_key_gradient<A, Term>(operands<Term>(w.ds) + at, row_stride, num_keys,
                                       operands<Term>(w.q) + row * width, p.head_dim, width,
                                       num_rows, plain_rows(rows_after(k, keys.begin - tile_begin)),
                                       w.dk + in_chunk * width);
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
  bool is_cut = false;                       // whether a rule hides some of the keys from some rows
  for (int i = 0; i < w.num_panels; ++i) {
    const Panel<A>& panel = w.panels[i].panel;
    const KeyTile tile = key_tile(g, panel, keys);
    S *p_rows = all_p + i * kPanelLanes<A>, *ds_rows = all_ds + i * kPanelLanes<A>;
    clear_unseen<A>(panel, keys, tile, stride, p_rows, ds_rows);
    is_cut = is_cut || tile.kind != TileKind::kFull;
    if (tile.kind == TileKind::kSkip) continue;
    seeing = {min_of(seeing.begin, i * kPanelLanes<A>), panel.rows.end - rows.begin};
    const int64_t skipped = tile.keys.begin - keys.begin;
    differentiate_tile<A, Term>(
        sums, wanted, g, tile, rows_from(key_rows, skipped), chunk.begin, w, i,
        {p_rows + skipped * stride, ds_rows + skipped * stride, stride, w.tiles.ds_pairs});
  }
  if (seeing.begin >= seeing.end) return;
  if constexpr (Term::kHasWeight) {
    if (sums.wanted.dp)
      spread_additive<A>(p, rows, keys.end - keys.begin, key_rows.k, stride,
                         w.dk + (keys.begin - chunk.begin) * padded<A>(p.head_dim), w);
  }
  const int64_t step = is_cut ? kGradientStepK : keys.end - keys.begin;
  for (int64_t key = keys.begin; key < keys.end; key += step) {
    const Span some = {key, min_of(key + step, keys.end)};
    const Span queries = is_cut ? visible_queries(g.mask, some) : Span{0, g.mask.seqlen_q};
    const Span seeing_some = {max_of(seeing.begin, queries.begin * p.group_size - rows.begin),
                              min_of(seeing.end, queries.end * p.group_size - rows.begin)};
    sum_over_rows<A, Term>(g, sums.wanted, seeing_some, some, keys.begin, chunk.begin, stride,
                           key_rows.k, w);
  }
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
