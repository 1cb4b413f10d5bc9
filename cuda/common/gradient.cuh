// The gradient of a row's scores against four consecutive keys: p and ds from the raw products and
// dp, and the sums over a row's keys that the gradients of scale, ALiBi slopes, sinks and row
// biases are made of.
#pragma once

#include "attention/gradient.h"
#include "common/scores.cuh"

namespace attnext::cuda {

// Sums over the keys of a row of ds x and of p x: x = 1; x = raw score after the softcap's slope
// (for scale); x = -distance (for ALiBi). Why p too: RowBalance in attention/gradient.h.
enum RowSum { kDs, kMass, kScaleDs, kScaleMass, kSlopeDs, kSlopeMass, kNumRowSums };

template <class A>
struct GradientRow {
  // Two numbers that add up to the lse to base 2: a single one rounds p where the lse is large.
  A lse_log2, lse_rest;
  A delta;
};

// A row that does not exist: its p is 0.
template <class A>
PTX_FN GradientRow<A> absent_row() {
  return {-negative_infinity<A>(), A(0), A(0)};
}

template <class A>
struct ScoreGradient {
  A p[kQuad];
  A dropped_p[kQuad];  // the weights that met the values
  A ds[kQuad];         // by the final score
  A ds_raw[kQuad];     // by the raw sum over d
};

// `s`: raw products. ds = p (m dp - delta).
template <class A>
PTX_FN ScoreGradient<A> differentiate_scores(const Problem& p, const Group& g,
                                             const ScoreRow<A>& row,
                                             const GradientRow<A>& gradient_row,
                                             const KeyTile& tile, int64_t key, const A (&dp)[kQuad],
                                             A (&s)[kQuad], ScoreTrace<A>* trace) {
  modify_scores(p, g.mask, row, tile, key, trace, s);
  const bool may_be_masked = is_masked(p, tile);
  A kept[kQuad] = {A(1), A(1), A(1), A(1)};
  if (p.dropout.probability > 0) draw_dropout(p, g.sequence, row, key, kept);
  ScoreGradient<A> r;
#pragma unroll
  for (int i = 0; i < kQuad; ++i) {
    const A relative = s[i] - gradient_row.lse_log2;
    r.p[i] = ThreadMath<A>::exp2(relative - gradient_row.lse_rest);
    r.dropped_p[i] = r.p[i] * kept[i];
    // A masked pair has no gradient even where its value or key is not finite.
    const bool is_off = may_be_masked && s[i] == negative_infinity<A>();
    r.ds[i] = is_off ? A(0) : score_gradient(r.p[i], dp[i] * kept[i], gradient_row.delta);
    A ds_raw = r.ds[i] * (row.scale * A(kLn2)) * trace->softcap_slope[i];
    if (p.score == Score::kNegL2) ds_raw *= finish_neg_l2_slope(trace->raw[i]);
    r.ds_raw[i] = ds_raw;
  }
  return r;
}

// What four keys add to the row sums.
template <class A>
PTX_FN void sum_row(const Problem& p, const Mask& mask, const ScoreRow<A>& row, int64_t key,
                    const ScoreGradient<A>& gradient, const ScoreTrace<A>& trace,
                    A (&sums)[kNumRowSums]) {
#pragma unroll
  for (int i = 0; i < kNumRowSums; ++i) sums[i] = A(0);
#pragma unroll
  for (int i = 0; i < kQuad; ++i) {
    const A raw = trace.raw[i] * trace.softcap_slope[i];
    const A distance = p.alibi_slopes ? alibi_distance_of(mask, row, key, i) : A(0);
    sums[kDs] += gradient.ds[i];
    sums[kMass] += gradient.p[i];
    sums[kScaleDs] += gradient.ds[i] * raw;
    sums[kScaleMass] += gradient.p[i] * raw;
    sums[kSlopeDs] -= gradient.ds[i] * distance;
    sums[kSlopeMass] -= gradient.p[i] * distance;
  }
}

}  // namespace attnext::cuda
