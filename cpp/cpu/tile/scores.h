// From raw products to the scores a softmax sees: scale, softcap, bias, ALiBi, mask, in that order,
// to base 2.
#pragma once

#include "attention/random.h"
#include "cpu/tile/matmul.h"
#include "cpu/tile/panel.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

// The scores of one panel against one key tile are [keys.end - keys.begin][lanes].
struct KeyTile {
  Span keys;  // of the sequence; begins at a multiple of 4 (a Philox block)
  TileKind kind;
};

// What backward wants kept on the way; null: not.
template <class A>
struct ScoreTrace {
  A* raw;  // the finished sum over d, before scale
  A* softcap_slope;
};

// One step: s <- f(s, index of the vector, key within the tile, first lane).
template <class A, class F>
ATTNEXT_HD void for_scores(const Panel<A>& panel, const KeyTile& tile, F&& f) {
  const int lanes = lanes_of(panel);
  const int64_t num_keys = tile.keys.end - tile.keys.begin;
  for (int64_t key = 0; key < num_keys; ++key)
    for (int lane = 0; lane < lanes; lane += kLanes<A>) f(key * lanes + lane, key, lane);
}

template <class A>
static void finish_raw_scores(const Problem& p, const Panel<A>& panel, const KeyTile& tile, A* s,
                              A* raw) {
  if (p.score == Score::kNegL2) {
    for_scores(panel, tile, [&](int64_t i, int64_t, int) {
      store<A>(s + i, finish_neg_l2<VectorMath<A>>(load<A>(s + i)));
    });
  }
  if (raw)
    for_scores(panel, tile, [&](int64_t i, int64_t, int) { store<A>(raw + i, load<A>(s + i)); });
}

template <class A>
static void apply_softcap(const Problem& p, const Panel<A>& panel, const KeyTile& tile, A* s,
                          A* slope) {
  const A cap = effective_cap<A>(p.softcap * kLog2E);
  for_scores(panel, tile, [&](int64_t i, int64_t, int) {
    const Vec<A> score = load<A>(s + i);
    if (slope) store<A>(slope + i, softcap_slope<VectorMath<A>>(score, cap));
    store<A>(s + i, softcap<VectorMath<A>>(score, cap));
  });
}

// A bias of -infinity masks its pair, whatever the score: NaN - infinity would not.
template <class A>
static void add_bias(const Group& g, const Panel<A>& panel, const KeyTile& tile, A* s, A* scratch) {
  const TensorView& bias = g.problem->bias;
  load_transposed<A>(
      lane_rows(panel, bias, 3, [&](int64_t row) { return dense_pointer(g, bias, row); }),
      panel.vectors, tile.keys.begin, tile.keys.end - tile.keys.begin, scratch);
  const Vec<A> masked = splat<A>(A(-__builtin_inf()));
  for_scores(panel, tile, [&](int64_t i, int64_t, int) {
    const Vec<A> b = load<A>(scratch + i);
    store<A>(s + i, select<A>(b == masked, masked, load<A>(s + i) + b * A(kLog2E)));
  });
}

// Lane positions relative to the tile's first key: exact in float however long the sequence is.
template <class A>
ATTNEXT_HD void relative_positions(const Group& g, const Panel<A>& panel, const KeyTile& tile,
                                   A* out) {
  for (int lane = 0; lane < lanes_of(panel); ++lane)
    out[lane] = static_cast<A>(panel.query[lane] + g.mask.diagonal - tile.keys.begin);
}

template <class A>
static void subtract_alibi(const Group& g, const Panel<A>& panel, const KeyTile& tile, A* s) {
  alignas(kVectorBytes) A position[kPanelLanes<A>];
  relative_positions<A>(g, panel, tile, position);
  for_scores(panel, tile, [&](int64_t i, int64_t key, int lane) {
    const Vec<A> distance = alibi_distance(load<A>(position + lane), splat<A>(static_cast<A>(key)));
    store<A>(s + i, load<A>(s + i) - load<A>(panel.slope + lane) * distance);
  });
}

template <class A>
static void mask_by_rule(const Group& g, const Panel<A>& panel, const KeyTile& tile, A* s) {
  alignas(kVectorBytes) A begin[kPanelLanes<A>], end[kPanelLanes<A>];
  for (int lane = 0; lane < lanes_of(panel); ++lane) {
    const Span keys = visible_keys(g.mask, panel.query[lane]);
    const int64_t num_keys = tile.keys.end - tile.keys.begin;
    begin[lane] = static_cast<A>(clamp_to(keys.begin - tile.keys.begin, 0, num_keys));
    end[lane] = static_cast<A>(clamp_to(keys.end - tile.keys.begin, 0, num_keys));
  }
  const Vec<A> masked = splat<A>(A(-__builtin_inf()));
  for_scores(panel, tile, [&](int64_t i, int64_t key, int lane) {
    const Vec<A> position = splat<A>(static_cast<A>(key));
    const Vec<A> kept = select<A>(position < load<A>(end + lane), load<A>(s + i), masked);
    store<A>(s + i, select<A>(position >= load<A>(begin + lane), kept, masked));
  });
}

template <class A>
static void mask_by_tensor(const Group& g, const Panel<A>& panel, const KeyTile& tile, A* s,
                           A* scratch) {
  const TensorView& mask = g.problem->mask;
  load_transposed<A>(
      lane_rows(panel, mask, 3, [&](int64_t row) { return dense_pointer(g, mask, row); }),
      panel.vectors, tile.keys.begin, tile.keys.end - tile.keys.begin, scratch);
  const Vec<A> masked = splat<A>(A(-__builtin_inf()));
  for_scores(panel, tile, [&](int64_t i, int64_t, int) {
    store<A>(s + i, select<A>(load<A>(scratch + i) == Vec<A>{}, masked, load<A>(s + i)));
  });
}

// Whether some score of the tile may be -infinity because a mask made it so.
ATTNEXT_HD bool is_masked(const Problem& p, const KeyTile& tile) {
  return tile.kind == TileKind::kPartial || is_present(p.mask) || is_present(p.bias);
}

// s: raw products in, scores to base 2 out. `scratch`: one more tile.
template <class A>
static void modify_scores(const Group& g, const Panel<A>& panel, const KeyTile& tile,
                          ScaleOn scale_on, ScoreTrace<A> trace, A* s, A* scratch) {
  const Problem& p = *g.problem;
  if (p.score == Score::kNegL2 || trace.raw) finish_raw_scores<A>(p, panel, tile, s, trace.raw);
  if (scale_on == ScaleOn::kScores) {
    for_scores(panel, tile, [&](int64_t i, int64_t, int lane) {
      store<A>(s + i, load<A>(s + i) * load<A>(panel.scale + lane));
    });
  }
  if (p.softcap > 0) apply_softcap<A>(p, panel, tile, s, trace.softcap_slope);
  if (is_present(p.bias)) add_bias<A>(g, panel, tile, s, scratch);
  if (p.alibi_slopes) subtract_alibi<A>(g, panel, tile, s);
  if (tile.kind == TileKind::kPartial) mask_by_rule<A>(g, panel, tile, s);
  if (is_present(p.mask)) mask_by_tensor<A>(g, panel, tile, s, scratch);
}

// The part of a key tile a panel can see.
template <class A>
ATTNEXT_HD KeyTile key_tile(const Group& g, const Panel<A>& panel, Span keys) {
  const Span reachable = reachable_keys(g.mask, panel.queries);
  const Span cut = {max_of(keys.begin, reachable.begin / 4 * 4), min_of(keys.end, reachable.end)};
  if (cut.begin >= cut.end) return {cut, TileKind::kSkip};
  return {cut, classify_tile(g.mask, panel.queries, cut)};
}

// s = the scores of a panel against the tile's keys `k`, to base 2. `scratch`: one more tile.
template <class A, class Term>
static void compute_scores(const Group& g, const Panel<A>& panel, const KeyTile& tile,
                           RowBlock<A> k, ScaleOn scale_on, ScoreTrace<A> trace, A* s, A* scratch) {
  multiply_keys<A, Term>(panel.vectors, k, tile.keys.end - tile.keys.begin, panel.q_t,
                         panel.weight_t, g.problem->head_dim, s);
  modify_scores<A>(g, panel, tile, scale_on, trace, s, scratch);
}

// 1/(1 - probability) where a weight is kept, 0 where it is dropped.
template <class A>
static void load_dropout(const Group& g, const Panel<A>& panel, const KeyTile& tile, A* factors) {
  const Dropout& dropout = g.problem->dropout;
  const uint64_t threshold = drop_threshold(dropout.probability);
  const A kept = dropout.probability < 1 ? static_cast<A>(1 / (1 - dropout.probability)) : A(0);
  const int lanes = lanes_of(panel);
  const int64_t num_keys = tile.keys.end - tile.keys.begin;
  uint32_t words[kPanelLanes<A>][4];
  for (int64_t key = 0; key < num_keys; key += 4) {
    const int64_t block = (tile.keys.begin + key) / 4;
    for (int lane = 0; lane < lanes; ++lane)
      dropout_words(dropout.seed, dropout.stream,
                    g.sequence * g.problem->num_heads_q + panel.head[lane], panel.query[lane],
                    block, words[lane]);
    for (int64_t i = 0; i < min_of(4, num_keys - key); ++i)
      for (int lane = 0; lane < lanes; ++lane)
        factors[(key + i) * lanes + lane] = words[lane][i] >= threshold ? kept : A(0);
  }
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
