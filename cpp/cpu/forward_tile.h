// What forward does with one panel of query rows and one tile of keys: scores, softmax, o += p v.
#pragma once

#include "cpu/tile/few_rows.h"
#include "cpu/tile/load_pairs.h"
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
  A *k, *v;                 // a key tile, where it cannot be read in place
  A *s, *dropout;           // [kTileK][lanes]
  Pair *p_pairs, *q_pairs;  // of paired terms: p, and a panel's rows on their way to q_t
  ModifierScratch<A>* modifiers;
  A* q_rows;     // the rows of a panel of few, padded
  int few_rows;  // 0: the panel is not one; else as many rows as the products are made for
};

// Where p goes.
template <class Term, class A>
ATTNEXT_HD Operand<Term, A>* weights_of(const ForwardScratch<A>& w) {
  if constexpr (kIsPaired<Term>)
    return w.p_pairs;
  else
    return w.s;
}

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
  w.p_pairs = take<Pair>(arena, is_paired(p) ? kTileK / 2 * lanes : 0);
  w.q_pairs = take<Pair>(arena, is_paired(p) ? lanes * paired_width(p.head_dim) : 0);
  w.dropout = take<A>(arena, p.dropout.probability > 0 ? kTileK * lanes : 0);
  w.modifiers = take_modifiers<A>(p, arena);
  w.q_rows = take<A>(arena, kFewRows<A> * round_up(p.head_dim, kLanes<A>));
  w.few_rows = 0;
  return w;
}

// Rounding scale * q to a pair's bfloat16 would be a second rounding.
template <class Term>
constexpr ScaleOn kForwardScale =
    Term::kIsBilinear && !kIsPaired<Term> ? ScaleOn::kQueries : ScaleOn::kScores;

template <class A, class Term>
static void load_block(const Group& g, Span rows, ForwardScratch<A>& w) {
  const Problem& p = *g.problem;
  QueryBlock<A>& block = *w.block;
  block.num_panels = static_cast<int>(divide_up(rows.end - rows.begin, kPanelLanes<A>));
  for (int i = 0; i < block.num_panels; ++i) {
    const int64_t begin = rows.begin + i * kPanelLanes<A>;
    Panel<A>& panel = block.panels[i];
    describe_rows<A>(g, {begin, min_of(begin + kPanelLanes<A>, rows.end)}, &panel);
    if constexpr (kIsPaired<Term>)
      load_transposed_pairs(g, panel, p.q, p.head_dim, w.q_pairs, operands<Term>(w.q_t[i]));
    else
      load_queries<A>(g, kForwardScale<Term>, w.q_t[i], w.weight_t[i], &panel);
    reset(&block.states[i]);
    std::memset(block.o_t[i], 0, sizeof(A) * p.head_dim_v * lanes_of(panel));
  }
  const int64_t num_rows = rows.end - rows.begin;
  w.few_rows = 0;
  if (!Term::kIsBilinear || kIsPaired<Term> || num_rows > kFewRows<A>) return;
  w.few_rows = num_rows == 3 ? 4 : static_cast<int>(num_rows);
  std::memset(w.q_rows, 0, sizeof(A) * kFewRows<A> * round_up(p.head_dim, kLanes<A>));
  gather_rows<A>(block.panels[0], p.head_dim, w.q_rows);
}

// A weight is exact to rounding whatever base it is relative to, as long as sums stay far within
// the range of the type.
template <class A>
constexpr A kLargestSum = A(1e12);
template <class A>
constexpr A kSmallestSum = A(1e-12);

// A base found from a maximum lies this far above it (to base 2): scores may then grow by twice as
// much before the next one is needed.
template <class A>
constexpr A kHeadroom = A(36);

// p = 2^(s - base) straight from the registers, with the sums of p beside them; then dropout. The
// plain case is compiled apart: code that is jumped over costs it registers.
template <class A, class Term, bool kIsPlain>
struct SoftenScores {
  Modifiers<A> modifiers;
  const A* base;     // [lanes]
  const A* dropout;  // [keys][lanes], null: none
  A* sum;            // [lanes]
  A* rounded_sum;    // [lanes], null: not wanted
  Operand<Term, A>* p;
  inline __attribute__((always_inline)) void move_to(int64_t lane) {
    ATTNEXT_ISA_NAMESPACE::move_to<A>(lane, &modifiers);
    base += lane;
    if (dropout) dropout += lane;
    sum += lane;
    if (rounded_sum) rounded_sum += lane;
    p += lane;
  }
  template <int kKeys, int kVectors>
  inline __attribute__((always_inline)) void finish(int64_t key, Vec<A> (&s)[kKeys][kVectors]) {
    const int64_t stride = modifiers.stride;
    if constexpr (!kIsPlain) modify<A>(modifiers, key, s);
    ATTNEXT_UNROLL for (int j = 0; j < kVectors; ++j) {
      const Vec<A> row_base = load<A>(base + j * kLanes<A>);
      Vec<A> row_sum = load<A>(sum + j * kLanes<A>);
      ATTNEXT_UNROLL for (int i = 0; i < kKeys; ++i) {
        s[i][j] = exp2<A>(s[i][j] - row_base);
        row_sum += s[i][j];
      }
      store<A>(sum + j * kLanes<A>, row_sum);
    }
    if (!kIsPlain && dropout)
      ATTNEXT_UNROLL for (int i = 0; i < kKeys; ++i)
          ATTNEXT_UNROLL for (int j = 0; j < kVectors; ++j) s[i][j] *=
          load<A>(dropout + (key + i) * stride + j * kLanes<A>);
    store_weights<Term, A>(s, key, stride, p, rounded_sum);
  }
};

// Which lanes need another base than the one that led to `sum`: those whose sum has outgrown it,
// and those that had none and for which 0 did not do. A rule that shows a row no key of the tile
// explains a sum of 0. NaN is NaN with any base.
template <class A>
ATTNEXT_HD IntVec<A> needs_base(const Modifiers<A>& m, int lane, Vec<A> base, Vec<A> sum) {
  const IntVec<A> has_none = base == -splat<A>(A(__builtin_inf()));
  IntVec<A> is_too_small = sum < splat<A>(kSmallestSum<A>);
  if (m.begin) is_too_small &= load<A>(m.begin + lane) < load<A>(m.end + lane);
  return (sum > splat<A>(kLargestSum<A>)) | (has_none & is_too_small) | (has_none & (sum != sum));
}

// Rows that need it take a base from the maximum of their scores `s`; the others keep theirs, for a
// row's bits must not depend on its neighbours. s becomes p, and sum its sum.
template <class A>
static void rebase(const Modifiers<A>& m, int vectors, int64_t num_keys, int64_t head_dim_v, A* s,
                   A* sum, A* o_t, RowState<A>* state) {
  const int lanes = vectors * kLanes<A>;
  for (int lane = 0; lane < lanes; lane += kLanes<A>) {
    const Vec<A> old_base = load<A>(state->base + lane);
    const IntVec<A> is_needed = needs_base(m, lane, old_base, load<A>(sum + lane));
    const Vec<A> row_max = column_maximum<A>(s + lane, lanes, num_keys, old_base);
    const Vec<A> base = select<A>(is_needed, row_max + kHeadroom<A>, old_base);
    change_base<A>(lanes, lane, base, head_dim_v, o_t, state);
    store<A>(sum + lane, soften_lanes<A>(lanes, lane, num_keys, base, s));
  }
}

// s (softened) -> p as the product with the values reads it, with dropout.
template <class A, class Term>
static void finish_weights(const Panel<A>& panel, int64_t num_keys, const A* dropout, const A* s,
                           Operand<Term, A>* p, A* rounded_sum) {
  const int64_t lanes = lanes_of(panel);
  if (rounded_sum) std::memset(rounded_sum, 0, sizeof(A) * lanes);
  for (int64_t key = 0; key < num_keys; key += kPack<Term>)
    for (int64_t lane = 0; lane < lanes; lane += kLanes<A>) {
      Vec<A> tile[kPack<Term>][1] = {};
      for (int64_t i = 0; i < min_of(kPack<Term>, num_keys - key); ++i) {
        const int64_t at = (key + i) * lanes + lane;
        tile[i][0] = dropout ? load<A>(s + at) * load<A>(dropout + at) : load<A>(s + at);
      }
      store_weights<Term, A>(tile, key, lanes, p + lane,
                             rounded_sum ? rounded_sum + lane : nullptr);
    }
}

// s = q kT, modified; p = 2^(s - base); the row sums.
template <class A, class Term>
static void soften_tile(const Group& g, const KeyTile& tile, RowBlock<Operand<Term, A>> k, int i,
                        const Modifiers<A>& m, const Segment* segments, int num_segments,
                        ForwardScratch<A>& w) {
  const Problem& p = *g.problem;
  const Panel<A>& panel = w.block->panels[i];
  RowState<A>* state = &w.block->states[i];
  const int64_t num_keys = tile.keys.end - tile.keys.begin;
  const int64_t depth = divide_up(p.head_dim, kPack<Term>);
  const int lanes = lanes_of(panel);
  Operand<Term, A>*q_t = operands<Term>(w.q_t[i]), *weights = weights_of<Term>(w);
  const A* dropout = p.dropout.probability > 0 ? w.dropout : nullptr;
  alignas(kVectorBytes) A base[kPanelLanes<A>], sum[kPanelLanes<A>], rounded[kPanelLanes<A>];
  A* rounded_sum = kIsPaired<Term> && !dropout ? rounded : nullptr;
  for (int lane = 0; lane < lanes; lane += kLanes<A>) {
    store<A>(base + lane, VectorMath<A>::finite_or_zero(load<A>(state->base + lane)));
    store<A>(sum + lane, Vec<A>{});
    store<A>(rounded + lane, Vec<A>{});
  }
  for (int n = 0; n < num_segments; ++n) {
    const auto multiply = [&](auto is_plain) {
      multiply_keys<A, Term>(
          segments[n].vectors, k, segments[n].keys, q_t, w.weight_t[i], depth,
          SoftenScores<A, Term, is_plain.value>{modifiers_of(m, segments[n]), base, dropout, sum,
                                                rounded_sum, weights});
    };
    if constexpr (kForwardScale<Term> == ScaleOn::kQueries) {
      if (!dropout && !has_any(modifiers_of(m, segments[n]))) {
        multiply(Int<1>{});
        continue;
      }
    }
    multiply(Int<0>{});
  }
  IntVec<A> is_needed{};
  for (int lane = 0; lane < lanes; lane += kLanes<A>)
    is_needed |= needs_base(m, lane, load<A>(state->base + lane), load<A>(sum + lane));
  if (any<A>(is_needed)) {
    compute_scores<A, Term>(panel, tile, k, q_t, depth, m, w.s);
    rebase<A>(m, panel.vectors, num_keys, p.head_dim_v, w.s, sum, w.block->o_t[i], state);
    if (dropout || kIsPaired<Term>)
      finish_weights<A, Term>(panel, num_keys, dropout, w.s, weights, rounded_sum);
  }
  for (int lane = 0; lane < lanes; lane += kLanes<A>) {
    const Vec<A> row_sum = load<A>(sum + lane), row_base = load<A>(state->base + lane);
    add_to<A>(state->row_sum + lane, row_sum);
    add_to<A>(state->rounded_sum + lane, load<A>(rounded + lane));
    // The base 0 did: from now on it is the row's own.
    store<A>(state->base + lane,
             select<A>(row_sum == Vec<A>{}, row_base, VectorMath<A>::finite_or_zero(row_base)));
  }
}

// The same for a panel of few rows, whose base is the maximum.
template <class A, class E>
static void soften_tile_few(const Group& g, const KeyTile& tile, RowBlock<E> k, RowBlock<E> v,
                            ForwardScratch<A>& w) {
  const Problem& p = *g.problem;
  const Panel<A>& panel = w.block->panels[0];
  const int64_t num_keys = tile.keys.end - tile.keys.begin, width = round_up(p.head_dim, kLanes<A>);
  with_few_rows<A>(w.few_rows, [&](auto rows) {
    multiply_few<A, rows.value>(k, num_keys, w.q_rows, width, lanes_of(panel), v, p.head_dim_v,
                                w.s);
  });
  const Modifiers<A> m = prepare_modifiers<A>(g, panel, tile, ScaleOn::kQueries, {}, w.modifiers);
  modify_scores<A>(m, panel.vectors, num_keys, w.s);
  soften<A>(panel.vectors, num_keys, p.head_dim_v, w.s, w.block->o_t[0], &w.block->states[0]);
  if (p.dropout.probability > 0)
    finish_weights<A, DotTerm>(panel, num_keys, w.dropout, w.s, w.s, nullptr);
}

// p of one tile, then o += p v.
template <class A, class Term>
static void attend_tile(const Group& g, const KeyTile& tile, RowBlock<Operand<Term, A>> k,
                        RowBlock<Operand<Term, A>> v, int i, ForwardScratch<A>& w) {
  const Problem& p = *g.problem;
  const Panel<A>& panel = w.block->panels[i];
  if (p.dropout.probability > 0) load_dropout<A>(g, panel, tile, w.dropout);
  const Modifiers<A> m = prepare_modifiers<A>(g, panel, tile, kForwardScale<Term>, {}, w.modifiers);
  if (m.sees_nothing) return;
  Segment segments[kMaxSegments];
  const int num_segments = cut_tile(g, panel, tile, segments);
  soften_tile<A, Term>(g, tile, k, i, m, segments, num_segments, w);
  for (int n = 0; n < num_segments; ++n) {
    const Span keys = segments[n].keys;
    accumulate<A, PlainDot<Term>>(
        segments[n].vectors, v, {keys.begin / kPack<Term>, divide_up(keys.end, kPack<Term>)},
        p.head_dim_v, weights_of<Term>(w), lanes_of(panel), nullptr, w.block->o_t[i]);
  }
}

// The same for a panel of few rows; `next_k`: where the next tile's keys are.
template <class A, class E>
static void attend_tile_few(const Group& g, const KeyTile& tile, RowBlock<E> k, RowBlock<E> v,
                            RowBlock<E> next_k, ForwardScratch<A>& w) {
  const Problem& p = *g.problem;
  const Panel<A>& panel = w.block->panels[0];
  if (p.dropout.probability > 0) load_dropout<A>(g, panel, tile, w.dropout);
  soften_tile_few<A>(g, tile, k, v, w);
  with_few_rows<A>(w.few_rows, [&](auto rows) {
    accumulate_few<A, rows.value>(v, tile.keys.end - tile.keys.begin, p.head_dim_v, w.s,
                                  lanes_of(panel), next_k, p.head_dim, w.block->o_t[0]);
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

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
