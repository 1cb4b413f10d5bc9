// What forward does with one panel of query rows and one tile of keys: scores, softmax, o += p v.
#pragma once

#include "cpu/tile/dropout.h"
#include "cpu/tile/few_rows.h"
#include "cpu/tile/load_pairs.h"
#include "cpu/tile/rows_ahead.h"
#include "cpu/tile/store.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

template <class A>
struct QueryBlock {
  int num_panels;
  Panel<A> panels[kManyPanels];
  RowState<A> states[kManyPanels];
  A* o_t[kManyPanels];            // [head_dim_v][lanes]
  bool was_rebased[kManyPanels];  // by the tile before
};

// What one worker needs.
template <class A>
struct ForwardScratch {
  QueryBlock<A>* block;
  A *q_t[kManyPanels], *weight_t[kManyPanels];
  A *k, *v;          // a key tile, where it cannot be read in place
  A *s, *p;          // [kTileK][lanes]
  BitWord<A>* kept;  // [kBitWords]
  Pair* q_pairs;     // of paired terms: a panel's rows on their way to q_t
  ModifierScratch<A>* modifiers;
  RowsAhead ahead[2];       // what the tile at work asks for meanwhile
  RowsAhead after_keys[2];  // what the last one does: q of the next block, out of this one
  A* q_rows;                // the rows of a panel of few, padded
  int few_rows;  // 0: the panel is not one; else as many rows as the products are made for
};

template <class A>
static ForwardScratch<A> carve_forward(const Problem& p, Arena* arena) {
  const int64_t lanes = kPanelLanes<A>;
  ForwardScratch<A> w;
  w.block = take<QueryBlock<A>>(arena, 1);
  const bool may_have_many = p.seqlen_q * p.group_size > kTileQ<A>;
  for (int i = 0; i < (may_have_many ? kManyPanels : kMaxPanels); ++i) {
    w.q_t[i] = take<A>(arena, p.head_dim * lanes);
    w.weight_t[i] = take<A>(arena, p.weight ? p.head_dim * lanes : 0);
    A* o_t = take<A>(arena, p.head_dim_v * lanes);
    if (arena->base) w.block->o_t[i] = o_t;
  }
  w.k = take<A>(arena, kTileK * round_up(p.head_dim, kLanes<A>));
  w.v = take<A>(arena, kTileK * round_up(p.head_dim_v, kLanes<A>));
  w.s = take<A>(arena, kTileK * lanes);
  w.p = take<A>(arena, kTileK * lanes);
  w.q_pairs = take<Pair>(arena, is_paired(p) ? lanes * paired_width(p.head_dim) : 0);
  w.kept = take<BitWord<A>>(arena, p.dropout.probability > 0 ? kBitWords<A> : 0);
  w.modifiers = take_modifiers<A>(p, arena);
  w.ahead[0] = w.ahead[1] = w.after_keys[0] = w.after_keys[1] = {};
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
    block.was_rebased[i] = false;
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
constexpr A kLargestSum = A(1e18);
template <class A>
constexpr A kSmallestSum = A(1e-12);

// A base found from a maximum lies this far above it (to base 2): scores may then grow by twice as
// much before the next one is needed.
template <class A>
constexpr A kHeadroom = A(60);

// p = 2^(s - base) straight from the registers, with the sums of p beside them; then dropout. The
// plain case, of a scale at most, is compiled apart: code that is jumped over costs it registers.
template <class A, class Term, bool kIsPlain>
struct SoftenScores {
  Modifiers<A> modifiers;
  Kept<A> kept;
  const A* base;   // [lanes]
  A* sum;          // [lanes]
  A* rounded_sum;  // [lanes], of paired terms
  Operand<Term, A>* p;
  RowsAhead* ahead;  // [2]; null, unless paired: nothing to ask for
  inline __attribute__((always_inline)) void move_to(int64_t lane) {
    ATTNEXT_ISA_NAMESPACE::move_to<A>(lane, &modifiers);
    base += lane;
    if (kept.words) kept.words += lane;
    sum += lane;
    rounded_sum += lane;
    p += lane;
  }
  template <int kKeys, int kVectors>
  inline __attribute__((always_inline)) void finish(int64_t key, Vec<A> (&s)[kKeys][kVectors]) {
    // The question spares 5 % at head_dim 8; around pairs gcc makes worse code of it (3 points).
    if (kIsPaired<Term> || ahead) {
      fetch_rows(&ahead[0]);
      fetch_rows(&ahead[1]);
    }
    if constexpr (!kIsPlain) modify<A>(modifiers, key, s);
    // A weight is stored as soon as it is there: held back, most would be spilled first.
    ATTNEXT_UNROLL for (int j = 0; j < kVectors; ++j) {
      const int64_t lane = j * kLanes<A>;
      const Vec<A> row_base = load<A>(base + lane);
      Vec<A> row_sum = load<A>(sum + lane), rounded{};
      if constexpr (kIsPaired<Term>) rounded = load<A>(rounded_sum + lane);
      ATTNEXT_UNROLL for (int i = 0; i < kKeys; i += kPack<Term>) {
        Vec<A> packed[kPack<Term>] = {};
        ATTNEXT_UNROLL for (int n = 0; n < kPack<Term>; ++n) {
          if (i + n >= kKeys) continue;
          Vec<A> x = s[i + n][j];
          if constexpr (kIsPlain && kForwardScale<Term> == ScaleOn::kScores)
            x *= load<A>(modifiers.scale + lane);  // fused with what follows
          packed[n] = exp2<A>(x - row_base);
          row_sum += packed[n];
          if (!kIsPlain && kept.words)
            packed[n] *= kept_factor(kept, modifiers.stride, key + i + n, lane);
        }
        store_packed<Term, A>(packed, p + (key + i) / kPack<Term> * modifiers.stride + lane,
                              &rounded);
      }
      store<A>(sum + lane, row_sum);
      if constexpr (kIsPaired<Term>) store<A>(rounded_sum + lane, rounded);
    }
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

// What a tile adds to a panel's sums.
template <class A>
struct TileSums {
  alignas(kVectorBytes) A sum[kPanelLanes<A>], rounded[kPanelLanes<A>];
};

// p and its sums of the `chosen` lanes from `lane` on, from stored scores; the others keep theirs.
template <class A, class Term>
static void soften_stored(int lane, int lanes, int64_t num_keys, IntVec<A> chosen, Vec<A> base,
                          const Kept<A>& kept, const ForwardScratch<A>& w, TileSums<A>* sums) {
  using E = Operand<Term, A>;
  base = VectorMath<A>::finite_or_zero(base);
  Vec<A> sum{}, rounded{};
  for (int64_t key = 0; key < num_keys; key += kPack<Term>) {
    Vec<A> packed[kPack<Term>] = {};
    for (int64_t n = 0; n < min_of(kPack<Term>, num_keys - key); ++n) {
      const int64_t at = (key + n) * lanes + lane;
      packed[n] = exp2<A>(load<A>(w.s + at) - base);
      sum += packed[n];
      if (kept.words) packed[n] *= kept_factor(kept, lanes, key + n, lane);
    }
    E* weights = operands<Term>(w.p) + key / kPack<Term> * lanes + lane;
    const Vec<E> before = load<E>(weights);
    store_packed<Term, A>(packed, weights, &rounded);
    store<E>(weights, chosen ? load<E>(weights) : before);
  }
  store<A>(sums->sum + lane, select<A>(chosen, sum, load<A>(sums->sum + lane)));
  store<A>(sums->rounded + lane, select<A>(chosen, rounded, load<A>(sums->rounded + lane)));
}

// The same straight from the registers.
template <class A, class Term>
static void soften_segments(const Segment* segments, int num_segments, RowBlock<Operand<Term, A>> k,
                            int i, int64_t depth, const Modifiers<A>& m, const Kept<A>& kept,
                            ForwardScratch<A>& w, TileSums<A>* sums) {
  const RowState<A>& state = w.block->states[i];
  alignas(kVectorBytes) A base[kPanelLanes<A>];
  for (int lane = 0; lane < kPanelLanes<A>; lane += kLanes<A>)
    store<A>(base + lane, VectorMath<A>::finite_or_zero(load<A>(state.base + lane)));
  const bool has_ahead = kIsPaired<Term> || w.ahead[0].count > 0 || w.ahead[1].count > 0;
  RowsAhead* const ahead = has_ahead ? w.ahead : nullptr;
  for (int n = 0; n < num_segments; ++n) {
    const auto multiply = [&](auto is_plain) {
      multiply_keys<A, Term>(
          segments[n].vectors, k, segments[n].keys, operands<Term>(w.q_t[i]), w.weight_t[i], depth,
          SoftenScores<A, Term, is_plain.value>{modifiers_of(m, segments[n]), kept, base, sums->sum,
                                                sums->rounded, operands<Term>(w.p), ahead});
    };
    constexpr bool kMayBePlain = !Term::kHasWeight;
    if (kMayBePlain && !kept.words && !changes_scores(modifiers_of(m, segments[n])))
      multiply(Int<kMayBePlain>{});
    else
      multiply(Int<0>{});
  }
}

// Rows that need it take a base from the maximum of their stored scores, and the weights and sums
// that go with it: a row's bits must not depend on its neighbours.
template <class A, class Term>
static void rebase(const Modifiers<A>& m, int i, int64_t num_keys, int64_t head_dim_v,
                   const Kept<A>& kept, ForwardScratch<A>& w, TileSums<A>* sums) {
  const int lanes = lanes_of(w.block->panels[i]);
  RowState<A>* state = &w.block->states[i];
  for (int lane = 0; lane < lanes; lane += kLanes<A>) {
    const Vec<A> old_base = load<A>(state->base + lane);
    const IntVec<A> is_needed = needs_base(m, lane, old_base, load<A>(sums->sum + lane));
    if (!any<A>(is_needed)) continue;
    const Vec<A> row_max = column_maximum<A>(w.s + lane, lanes, num_keys, old_base);
    // Weights of 0 relative to 0 are right where nothing is seen.
    if (!any<A>(is_needed & (row_max != -splat<A>(A(__builtin_inf()))))) continue;
    const Vec<A> base = select<A>(is_needed, row_max + kHeadroom<A>, old_base);
    change_base<A>(lanes, lane, base, head_dim_v, w.block->o_t[i], state);
    soften_stored<A, Term>(lane, lanes, num_keys, is_needed, base, kept, w, sums);
  }
}

template <class A>
ATTNEXT_HD bool needs_base(const Modifiers<A>& m, int lanes, const RowState<A>& state,
                           const TileSums<A>& sums) {
  IntVec<A> is_needed{};
  for (int lane = 0; lane < lanes; lane += kLanes<A>)
    is_needed |= needs_base(m, lane, load<A>(state.base + lane), load<A>(sums.sum + lane));
  return any<A>(is_needed);
}

// s = q kT, modified; p = 2^(s - base); the row sums. Where the tile before asked for a base, this
// one may: its scores are stored first then, and need not be computed twice. (Not where their scale
// is fused with the subtraction of the base: stored, they would be rounded in between, and the bits
// of a row that keeps its base would depend on its neighbours.)
template <class A, class Term>
static void soften_tile(const Group& g, const KeyTile& tile, RowBlock<Operand<Term, A>> k, int i,
                        const Modifiers<A>& m, const Kept<A>& kept, const Segment* segments,
                        int num_segments, ForwardScratch<A>& w) {
  const Problem& p = *g.problem;
  const Panel<A>& panel = w.block->panels[i];
  RowState<A>* state = &w.block->states[i];
  const int64_t num_keys = tile.keys.end - tile.keys.begin;
  const int64_t depth = divide_up(p.head_dim, kPack<Term>);
  const int lanes = lanes_of(panel);
  Operand<Term, A>* q_t = operands<Term>(w.q_t[i]);
  TileSums<A> sums{};
  const bool is_stored = kForwardScale<Term> == ScaleOn::kQueries && w.block->was_rebased[i];
  if (is_stored) {
    compute_scores<A, Term>(panel, tile, k, q_t, depth, m, w.s);
    for (int lane = 0; lane < lanes; lane += kLanes<A>)
      soften_stored<A, Term>(lane, lanes, num_keys, IntVec<A>{} == 0, load<A>(state->base + lane),
                             kept, w, &sums);
  } else {
    soften_segments<A, Term>(segments, num_segments, k, i, depth, m, kept, w, &sums);
  }
  w.block->was_rebased[i] = needs_base(m, lanes, *state, sums);
  if (w.block->was_rebased[i]) {
    if (!is_stored) compute_scores<A, Term>(panel, tile, k, q_t, depth, m, w.s);
    rebase<A, Term>(m, i, num_keys, p.head_dim_v, kept, w, &sums);
  }
  for (int lane = 0; lane < lanes; lane += kLanes<A>) {
    const Vec<A> row_sum = load<A>(sums.sum + lane), row_base = load<A>(state->base + lane);
    add_to<A>(state->row_sum + lane, row_sum);
    if (!kept.words) add_to<A>(state->rounded_sum + lane, load<A>(sums.rounded + lane));
    // The base 0 did: from now on it is the row's own.
    store<A>(state->base + lane,
             select<A>(row_sum == Vec<A>{}, row_base, VectorMath<A>::finite_or_zero(row_base)));
  }
}

// The same for a panel of few rows, whose base is the maximum: p is [keys][rows].
template <class A, class E>
static void soften_tile_few(const Group& g, const KeyTile& tile, RowBlock<E> k, RowBlock<E> v,
                            ForwardScratch<A>& w) {
  const Problem& p = *g.problem;
  const Panel<A>& panel = w.block->panels[0];
  const int64_t num_keys = tile.keys.end - tile.keys.begin, width = round_up(p.head_dim, kLanes<A>);
  const int lanes = lanes_of(panel);
  with_few_rows<A>(w.few_rows, [&](auto rows) {
    multiply_few<A, rows.value>(k, num_keys, w.q_rows, width, v, p.head_dim_v, w.p);
  });
  const Modifiers<A> m = prepare_modifiers<A>(g, panel, tile, ScaleOn::kQueries, {}, w.modifiers);
  if (changes_scores(m)) {
    std::memset(w.s, 0, sizeof(A) * num_keys * lanes);
    for_few<A>(w.few_rows, num_keys, lanes, [&](int64_t i, int64_t at) { w.s[at] = w.p[i]; });
    modify_scores<A>(m, panel.vectors, num_keys, w.s);
    for_few<A>(w.few_rows, num_keys, lanes, [&](int64_t i, int64_t at) { w.p[i] = w.s[at]; });
  }
  with_few_rows<A>(w.few_rows, [&](auto rows) {
    soften_few<A, rows.value>(num_keys, p.head_dim_v, w.p, w.block->o_t[0], &w.block->states[0]);
  });
  const Kept<A> kept = load_dropout(g, panel, tile, w.kept);
  if (kept.words)
    for_few<A>(w.few_rows, num_keys, lanes, [&](int64_t i, int64_t at) {
      w.p[i] *= kept_factor_of(kept, lanes, at / lanes, at % lanes);
    });
}

// p of one tile, then o += p v.
template <class A, class Term>
static void attend_tile(const Group& g, const KeyTile& tile, RowBlock<Operand<Term, A>> k,
                        RowBlock<Operand<Term, A>> v, int i, ForwardScratch<A>& w) {
  const Problem& p = *g.problem;
  const Panel<A>& panel = w.block->panels[i];
  Modifiers<A> m = prepare_modifiers<A>(g, panel, tile, kForwardScale<Term>, {}, w.modifiers);
  const bool is_last = i + 1 == w.block->num_panels;
  const int64_t next = tile.keys.end;
  prefetch_modifiers<A>(g, tile, w.block->panels[is_last ? 0 : i + 1],
                        is_last ? Span{next, min_of(next + kTileK, g.mask.seqlen_k)} : tile.keys,
                        w.modifiers, &m);
  if (m.sees_nothing) return;
  const Kept<A> kept = load_dropout(g, panel, tile, w.kept);
  Segment segments[kMaxSegments];
  int num_segments = cut_tile(g, panel, tile, segments);
  soften_tile<A, Term>(g, tile, k, i, m, kept, segments, num_segments, w);
  num_segments = join_segments(segments, num_segments);
  for (int n = 0; n < num_segments; ++n) {
    const Span keys = segments[n].keys;
    accumulate<A, PlainDot<Term>>(
        segments[n].vectors, v, {keys.begin / kPack<Term>, divide_up(keys.end, kPack<Term>)},
        p.head_dim_v, operands<Term>(w.p), lanes_of(panel), nullptr, w.block->o_t[i]);
  }
}

// The same for a panel of few rows; `next_k`: where the next tile's keys are.
template <class A, class E>
static void attend_tile_few(const Group& g, const KeyTile& tile, RowBlock<E> k, RowBlock<E> v,
                            RowBlock<E> next_k, ForwardScratch<A>& w) {
  const Problem& p = *g.problem;
  soften_tile_few<A>(g, tile, k, v, w);
  with_few_rows<A>(w.few_rows, [&](auto rows) {
    accumulate_few<A, rows.value>(v, tile.keys.end - tile.keys.begin, p.head_dim_v, w.p, next_k,
                                  p.head_dim, w.block->o_t[0]);
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
