// From raw products to the scores a softmax sees: scale, softcap, bias, ALiBi, mask, in that order,
// to base 2; and which weights dropout keeps. One row and four consecutive keys at a time, which is
// also what one Philox counter draws.
#pragma once

#include "attention/random.h"
#include "common/rows.cuh"

namespace attnext::cuda {

// All that the scores of a row depend on.
template <class A>
struct ScoreRow {
  const char *bias, *mask;  // element [query, 0] of the row; null where absent
  int64_t query, head;
  A scale, slope;  // of scores to base 2; slope: ALiBi
};

// The keys a tile of scores covers, the first a multiple of 4 (a Philox block).
struct KeyTile {
  Span keys;        // of the sequence
  bool is_partial;  // some of the tile's pairs are not allowed by rule, or no pairs at all
};

template <class A>
PTX_FN A alibi_slope(const Problem& p, const Group& g, int64_t head) {
  return static_cast<A>(p.alibi_slopes[g.sequence * p.num_heads_q + head] * kLog2E);
}

template <class A>
PTX_FN ScoreRow<A> score_row(const Problem& p, const Group& g, int64_t row) {
  ScoreRow<A> r;
  const Position at = position_of(g, row);
  r.bias = is_present(p.bias) ? dense_pointer(g, p.bias, at) : nullptr;
  r.mask = is_present(p.mask) ? dense_pointer(g, p.mask, at) : nullptr;
  r.query = at.query;
  r.head = at.head;
  r.scale = static_cast<A>(p.scale[r.head] * kLog2E);
  r.slope = p.alibi_slopes ? alibi_slope<A>(p, g, r.head) : A(0);
  return r;
}

// Whether some score of the tile may be -infinity because a mask made it so.
PTX_FN bool is_masked(const Problem& p, const KeyTile& tile) {
  return tile.is_partial || is_present(p.mask) || is_present(p.bias);
}

// The tile of the keys [begin, begin + tile_keys) for rows that ask for `queries`, of which only
// those within `range` are asked for. Empty: nothing to see.
PTX_FN KeyTile key_tile(const Mask& mask, Span queries, Span range, int64_t begin,
                        int64_t tile_keys) {
  const Span reachable = reachable_keys(mask, queries);
  const Span keys = {begin, min_of(min_of(begin + tile_keys, range.end), reachable.end)};
  const TileKind kind =
      keys.begin < keys.end ? classify_tile(mask, queries, keys) : TileKind::kSkip;
  if (kind == TileKind::kSkip) return {{begin, begin}, true};
  return {keys, kind == TileKind::kPartial || keys.end - keys.begin < tile_keys};
}

// What the derivatives of the modifiers are made of.
template <class A>
struct ScoreTrace {
  A raw[kQuad];            // the finished sum over d, before scale
  A softcap_slope[kQuad];  // 1 without softcap
};

template <class A>
PTX_FN A alibi_distance_of(const Mask& mask, const ScoreRow<A>& row, int64_t key, int i) {
  return alibi_distance(static_cast<A>(row.query + mask.diagonal - key), static_cast<A>(i));
}

// A bias of -infinity masks its pair, whatever the score: NaN - infinity would not.
template <class A>
PTX_FN A biased(A score, A bias) {
  return bias == negative_infinity<A>() ? bias : score + bias * A(kLog2E);
}

template <class A>
PTX_FN void add_bias(const TensorView& bias, const char* row, int64_t key, int64_t end,
                     A (&s)[kQuad]) {
  A b[kQuad];
  read_quad<A>(row, dtype_of(bias), bias.strides[3], key, end, b);
#pragma unroll
  for (int i = 0; i < kQuad; ++i) s[i] = biased(s[i], b[i]);
}

template <class A>
PTX_FN void mask_by_rule(const Mask& mask, int64_t query, int64_t key, A (&s)[kQuad]) {
  const Span visible = visible_keys(mask, query);
#pragma unroll
  for (int i = 0; i < kQuad; ++i)
    if (key + i < visible.begin || key + i >= visible.end) s[i] = negative_infinity<A>();
}

template <class A>
PTX_FN void mask_by_tensor(const TensorView& mask, const char* row, int64_t key, int64_t end,
                           A (&s)[kQuad]) {
#pragma unroll
  for (int i = 0; i < kQuad; ++i)
    if (key + i < end && row[(key + i) * mask.strides[3]] == 0) s[i] = negative_infinity<A>();
}

// s: raw products of a row with the keys from `key` on in, scores to base 2 out.
template <class A>
PTX_FN void modify_scores(const Problem& p, const Mask& mask, const ScoreRow<A>& row,
                          const KeyTile& tile, int64_t key, ScoreTrace<A>* trace, A (&s)[kQuad]) {
  using Math = ThreadMath<A>;
  const A cap = effective_cap<A>(p.softcap * kLog2E);
#pragma unroll
  for (int i = 0; i < kQuad; ++i) {
    if (p.score == Score::kNegL2) s[i] = finish_neg_l2<Math>(s[i]);
    if (trace) trace->raw[i] = s[i];
    s[i] *= row.scale;
    if (trace) trace->softcap_slope[i] = p.softcap > 0 ? softcap_slope<Math>(s[i], cap) : A(1);
    if (p.softcap > 0) s[i] = softcap<Math>(s[i], cap);
  }
  if (row.bias) add_bias(p.bias, row.bias, key, tile.keys.end, s);
  if (p.alibi_slopes) {
#pragma unroll
    for (int i = 0; i < kQuad; ++i) s[i] -= row.slope * alibi_distance_of(mask, row, key, i);
  }
  if (tile.is_partial) mask_by_rule(mask, row.query, key, s);
  if (row.mask) mask_by_tensor(p.mask, row.mask, key, tile.keys.end, s);
}

// What a weight that dropout keeps is multiplied by.
template <class A>
PTX_FN A kept_factor(const Dropout& dropout) {
  return dropout.probability < 1 ? static_cast<A>(1 / (1 - dropout.probability)) : A(0);
}

// That factor where a weight is kept, 0 where it is dropped.
template <class A>
PTX_FN void draw_dropout(const Problem& p, int64_t sequence, const ScoreRow<A>& row, int64_t key,
                         A (&factors)[kQuad]) {
  const Dropout& dropout = p.dropout;
  const uint64_t threshold = drop_threshold(dropout.probability);
  const A kept = kept_factor<A>(dropout);
  uint32_t words[kQuad];
  dropout_words(dropout.seed, dropout.stream, sequence * p.num_heads_q + row.head, row.query,
                key / kQuad, words);
#pragma unroll
  for (int i = 0; i < kQuad; ++i) factors[i] = words[i] >= threshold ? kept : A(0);
}

}  // namespace attnext::cuda
