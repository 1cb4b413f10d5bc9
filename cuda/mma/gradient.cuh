// The gradient of a tile of scores, on fragments: p and ds from raw products and dp, and the sums
// over a row's keys that the gradients of scale, ALiBi slopes and sinks are made of.
#pragma once

#include "attention/gradient.h"
#include "common/gradient.cuh"
#include "mma/store.cuh"

namespace attnext::cuda::mma {

struct BackwardArguments {
  BackwardParams params;
  bool q_has_chunks, k_has_chunks, v_has_chunks, dout_has_chunks;
  bool dq_has_pairs, dk_has_pairs, dv_has_pairs;
  int64_t items;                  // blocks for each (sequence, key head)
  const float *lse_log2, *delta;  // by workspace_row
  double* row_sums;               // by workspace_row, kNumRowSums each; null where not wanted
};

// What the scores and gradients of a lane's two rows depend on.
struct GradientRows {
  Position at[2];
  float scale[2];     // of scores, to base 2
  float ds_scale[2];  // relative to the group's largest
  float lse_log2[2], delta[2];
};

// The largest magnitude among a group's scales: ds is rounded to 16 bits relative to it, and the
// sums are multiplied by it, so that a small scale costs float16 no digits.
PTX_FN float reference_scale(const Group& g) {
  double largest = 0;
  for (int64_t i = 0; i < g.num_heads; ++i)
    largest = fmax(largest, fabs(g.problem->scale[g.first_head + i]));
  return largest > 0 ? static_cast<float>(largest) : 1.f;
}

// Rows that do not exist have an lse of +infinity: their p is 0.
PTX_FN GradientRows gradient_rows(const BackwardArguments& a, const Group& g, int64_t first_row,
                                  int lane, float reference) {
  GradientRows r;
  const WarpTile tile = {first_row, {0, 0}, TileKind::kSkip, lane};
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const bool exists = first_row + fragment_row(lane, half) < g.num_rows;
    r.at[half] = position_of(g, max_of(row_of(g, tile, 0, half), 0));
    const double scale = g.problem->scale[r.at[half].head];
    r.scale[half] = static_cast<float>(scale * kLog2E);
    r.ds_scale[half] = static_cast<float>(scale) / reference;
    const int64_t row = workspace_row(g, r.at[half]);
    r.lse_log2[half] = exists ? ptx::ld_global(a.lse_log2 + row) : -negative_infinity();
    r.delta[half] = exists ? ptx::ld_global(a.delta + row) : 0.f;
  }
  return r;
}

// One pair of query and key.
struct PairGradient {
  float p, ds;
  float raw;    // score before scale, times the softcap's slope
  float slope;  // of the softcap
};

PTX_FN float pair_bias(const Group& g, Position at, int64_t key) {
  const TensorView& bias = g.problem->bias;
  return read_float(bias, dense_offset(g, bias, at) + key * bias.strides[3]);
}
PTX_FN bool is_masked_by_tensor(const Group& g, Position at, int64_t key) {
  const TensorView& mask = g.problem->mask;
  return static_cast<const uint8_t*>(
             mask.data)[dense_offset(g, mask, at) + key * mask.strides[3]] == 0;
}
PTX_FN float pair_distance(const Group& g, Position at, int64_t first_key, int key) {
  return alibi_distance(static_cast<float>(at.query + g.mask.diagonal - first_key),
                        static_cast<float>(key));
}

// The score of a pair to base 2, -infinity where masked, and the softcap's slope. `key` counts from
// `first_key`.
template <bool kHasOptions>
PTX_FN float pair_score(const Group& g, const WarpTile& tile, Position at, float scale,
                        int64_t first_key, int key, float raw, float* slope) {
  const Problem& p = *g.problem;
  float score = raw * scale;
  *slope = 1;
  if constexpr (kHasOptions) {
    if (p.softcap > 0) {
      const float cap = effective_cap<float>(p.softcap * kLog2E);
      *slope = softcap_slope<FloatMath>(score, cap);
      score = softcap<FloatMath>(score, cap);
    }
    const bool exists = first_key + key < tile.keys.end;
    if (is_present(p.bias) && exists) {
      const float b = pair_bias(g, at, first_key + key);
      score = b == negative_infinity() ? b : score + b * static_cast<float>(kLog2E);
    }
    if (p.alibi_slopes) score -= slope_of(g, at.head) * pair_distance(g, at, first_key, key);
    if (is_present(p.mask) && exists && is_masked_by_tensor(g, at, first_key + key))
      score = negative_infinity();
  }
  if (tile.kind == TileKind::kPartial) {
    const Span visible = visible_keys(g.mask, at.query);
    if (first_key + key < visible.begin || first_key + key >= visible.end)
      score = negative_infinity();
  }
  return score;
}

// ds = p (m dp - delta), m the dropout factor.
template <bool kHasOptions>
PTX_FN PairGradient differentiate_pair(const Group& g, const WarpTile& tile,
                                       const GradientRows& rows, int half, int64_t first_key,
                                       int key, float raw, float dropped_dp) {
  PairGradient r;
  const float score = pair_score<kHasOptions>(g, tile, rows.at[half], rows.scale[half], first_key,
                                              key, raw, &r.slope);
  r.p = ptx::ex2(score - rows.lse_log2[half]);
  // A masked pair has no gradient even where its value or key is not finite.
  r.ds = score == negative_infinity() ? 0 : score_gradient(r.p, dropped_dp, rows.delta[half]);
  r.raw = raw * r.slope;
  return r;
}

using RowSums = float[2][kNumRowSums];

PTX_FN void add_row_sums(const Group& g, const GradientRows& rows, int half, int64_t first_key,
                         int key, const PairGradient& pair, RowSums& sums) {
  if (pair.p == 0) return;  // a masked key may hold anything
  sums[half][kDs] += pair.ds;
  sums[half][kMass] += pair.p;
  sums[half][kScaleDs] += pair.ds * pair.raw;
  sums[half][kScaleMass] += pair.p * pair.raw;
  if (!g.problem->alibi_slopes) return;
  const float distance = pair_distance(g, rows.at[half], first_key, key);
  sums[half][kSlopeDs] -= pair.ds * distance;
  sums[half][kSlopeMass] -= pair.p * distance;
}

}  // namespace attnext::cuda::mma
