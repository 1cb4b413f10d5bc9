// The gradient of a tile of scores, on fragments: p and ds from raw products and dp, and the sums
// over a row's keys that the gradients of scale, ALiBi slopes and sinks are made of.
#pragma once

#include "common/gradient.cuh"
#include "mma/load.cuh"
#include "mma/store.cuh"

namespace attnext::cuda::mma {

struct BackwardArguments {
  BackwardParams params;
  RowAccess q_access, k_access, v_access, dout_access;
  bool dq_has_pairs, dk_has_pairs, dv_has_pairs;
  int64_t items;                  // blocks for each (sequence, key head)
  const float *lse_log2, *delta;  // by workspace_row
  double* row_sums;               // by workspace_row, kNumRowSums each; null where not wanted
};

// What the scores and gradients of a row depend on.
struct GradientRow {
  Position at;
  float scale;     // of scores, to base 2
  float ds_scale;  // relative to the group's largest
  float lse_log2, delta;
};

// Of a group's heads.
struct Scales {
  // The largest magnitude: ds is rounded to 16 bits relative to it, and the sums are multiplied by
  // it, so that a small scale costs float16 no digits.
  float reference;
  float common;  // what all have, to base 2; 0 where they differ
};

PTX_FN Scales scales_of(const Problem& p, const Group& g) {
  const double* scale = p.scale + g.first_head;
  double largest = 0;
  bool differ = false;
  for (int64_t i = 0; i < g.num_heads; ++i) {
    largest = fmax(largest, fabs(scale[i]));
    differ |= scale[i] != scale[0];
  }
  return {largest > 0 ? static_cast<float>(largest) : 1.f,
          differ ? 0.f : static_cast<float>(scale[0] * kLog2E)};
}

// Of a row that exists, with all but its lse and delta.
template <bool kHasOptions>
PTX_FN GradientRow scaled_row(const Problem& p, Position at, const Scales& scales) {
  if constexpr (!kHasOptions) return {at, scales.common, 1, 0, 0};
  if (scales.common != 0) return {at, scales.common, copysignf(1, scales.common), 0, 0};
  const double scale = p.scale[at.head];
  return {at, static_cast<float>(scale * kLog2E), static_cast<float>(scale) / scales.reference, 0,
          0};
}

// A row that does not exist repeats the last one, with an lse of +infinity: its p is 0.
template <bool kHasOptions>
PTX_FN GradientRow gradient_row(const BackwardArguments& a, const Group& g, int64_t row,
                                const Scales& scales) {
  const Problem& p = a.params.problem;
  const bool exists = row < g.num_rows;
  GradientRow r =
      scaled_row<kHasOptions>(p, position_of(g, max_of(min_of(row, g.num_rows - 1), 0)), scales);
  const int64_t at = workspace_row(p, g, r.at);
  r.lse_log2 = exists ? ptx::ld_global(a.lse_log2 + at) : -negative_infinity();
  r.delta = exists ? ptx::ld_global(a.delta + at) : 0.f;
  return r;
}

// One pair of query and key.
struct PairGradient {
  float p, ds;
  float raw;    // score before scale, times the softcap's slope
  float slope;  // of the softcap
};

PTX_FN float pair_bias(const TensorView& bias, const Group& g, Position at, int64_t key) {
  return read_element<float>(bias, dense_offset(g, bias, at) + key * bias.strides[3]);
}
PTX_FN bool is_masked_by_tensor(const TensorView& mask, const Group& g, Position at, int64_t key) {
  const int64_t offset = dense_offset(g, mask, at) + key * mask.strides[3];
  return static_cast<const uint8_t*>(mask.data)[offset] == 0;
}
PTX_FN float pair_distance(const Group& g, Position at, int64_t first_key, int key) {
  return alibi_distance(static_cast<float>(at.query + g.mask.diagonal - first_key),
                        static_cast<float>(key));
}

// The score of a pair to base 2, -infinity where masked, and the softcap's slope. `key` counts from
// `first_key`. Without options, all scales are one and positive.
template <bool kHasOptions>
PTX_FN float pair_score(const Problem& p, const Group& g, const GradientRow& row, int64_t first_key,
                        int key, bool is_visible, float raw, float* slope) {
  float score = raw * row.scale;
  *slope = 1;
  if constexpr (kHasOptions) {
    if (p.softcap > 0) {
      const float cap = effective_cap<float>(p.softcap * kLog2E);
      *slope = softcap_slope<ThreadMath<float>>(score, cap);
      score = softcap<ThreadMath<float>>(score, cap);
    }
    if (is_present(p.bias) && is_visible)
      score = biased(score, pair_bias(p.bias, g, row.at, first_key + key));
    if (p.alibi_slopes)
      score -= alibi_slope<float>(p, g, row.at.head) * pair_distance(g, row.at, first_key, key);
    if (is_present(p.mask) && is_visible && is_masked_by_tensor(p.mask, g, row.at, first_key + key))
      score = negative_infinity();
  }
  return is_visible ? score : negative_infinity();
}

// ds = p (m dp - delta). `kHasRule`: the pair may be masked by rule.
template <bool kHasOptions, bool kHasRule>
PTX_FN PairGradient differentiate_pair(const Problem& p, const Group& g, const GradientRow& row,
                                       int64_t first_key, int key, bool is_visible, float raw,
                                       float dropped_dp) {
  PairGradient r;
  const float score = pair_score<kHasOptions>(p, g, row, first_key, key, is_visible, raw, &r.slope);
  r.p = ptx::ex2(score - row.lse_log2);
  // A masked pair has no gradient even where its value or key is not finite.
  const bool is_masked = (kHasOptions || kHasRule) && score == negative_infinity();
  r.ds = is_masked ? 0 : score_gradient(r.p, dropped_dp, row.delta);
  r.raw = raw * r.slope;
  return r;
}

PTX_FN void add_row_sums(const Problem& p, const Group& g, const GradientRow& row,
                         int64_t first_key, int key, const PairGradient& pair,
                         float (&sums)[kNumRowSums]) {
  if (pair.p == 0) return;  // a masked key may hold anything
  sums[kDs] += pair.ds;
  sums[kMass] += pair.p;
  sums[kScaleDs] += pair.ds * pair.raw;
  sums[kScaleMass] += pair.p * pair.raw;
  if (!p.alibi_slopes) return;
  const float distance = pair_distance(g, row.at, first_key, key);
  sums[kSlopeDs] -= pair.ds * distance;
  sums[kSlopeMass] -= pair.p * distance;
}

}  // namespace attnext::cuda::mma
