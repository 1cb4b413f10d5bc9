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
  float cap;  // of the softcap, to base 2; 0: there is none
  bool has_dropout;
  int64_t items;                  // blocks for each (sequence, key head)
  const float *lse_log2, *delta;  // by workspace_row
  double* row_sums;               // by workspace_row, kNumRowSums each; null where not wanted
};

// What the scores and gradients of a row depend on.
struct GradientRow {
  Position at;
  float scale;     // of scores, to base 2
  float ds_scale;  // relative to the group's largest
  float alibi;     // slope, to base 2
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

// Of a row that exists, with all but its lse and delta. Without options, all scales of a group are
// one and positive.
template <bool kHasOptions>
PTX_FN GradientRow scaled_row(const Problem& p, const Group& g, Position at, const Scales& scales) {
  GradientRow r = {at, scales.common, 1, 0, 0, 0};
  if constexpr (kHasOptions) {
    const double scale = p.scale[at.head];
    const bool is_common = scales.common != 0;
    r.scale = is_common ? scales.common : static_cast<float>(scale * kLog2E);
    r.ds_scale =
        is_common ? copysignf(1, scales.common) : static_cast<float>(scale) / scales.reference;
    if (p.alibi_slopes) r.alibi = alibi_slope<float>(p, g, at.head);
  }
  return r;
}

// A row that does not exist repeats the last one, with an lse of +infinity: its p is 0.
template <bool kHasOptions>
PTX_FN GradientRow gradient_row(const BackwardArguments& a, const Group& g, int64_t row,
                                const Scales& scales) {
  const Problem& p = a.params.problem;
  const bool exists = row < g.num_rows;
  const Position at = position_of(g, max_of(min_of(row, g.num_rows - 1), 0));
  GradientRow r = scaled_row<kHasOptions>(p, g, at, scales);
  const int64_t from = workspace_row(p, g, at);
  r.lse_log2 = exists ? ptx::ld_global(a.lse_log2 + from) : -negative_infinity();
  r.delta = exists ? ptx::ld_global(a.delta + from) : 0.f;
  return r;
}

// Four pairs of query and key, as a lane has them of a fragment. Of pair i, in half i / 2 and
// column i % 2 of the lane's, the query is one of two rows and the key lies `key(i)` after
// `first_key`.
template <bool kOwnsKeys>
struct FragmentPairs {
  const GradientRow (&rows)[2];
  int64_t first_key;
  int column;
  bool is_visible[4];  // by rule

  PTX_FN const GradientRow& row(int i) const { return rows[kOwnsKeys ? i % 2 : i / 2]; }
  PTX_FN int key(int i) const { return kOwnsKeys ? 8 * (i / 2) : column + i % 2; }
};

template <class F>
PTX_FN void for_pairs(F&& f) {
#pragma unroll
  for (int i = 0; i < 4; ++i) f(i);
}

template <bool kOwnsKeys>
PTX_FN float pair_distance(const Group& g, const FragmentPairs<kOwnsKeys>& pairs, int i) {
  const int64_t first = pairs.row(i).at.query + g.mask.diagonal - pairs.first_key;
  return alibi_distance(static_cast<float>(first), static_cast<float>(pairs.key(i)));
}

template <bool kOwnsKeys>
PTX_FN void add_pair_biases(const TensorView& bias, const Group& g,
                            const FragmentPairs<kOwnsKeys>& pairs, float (&score)[4]) {
  with_storage(dtype_of(bias), [&](auto storage) {
    using Storage = decltype(storage);
    const auto* all = static_cast<const typename Storage::Type*>(bias.data);
    for_pairs([&](int i) {
      if (!pairs.is_visible[i]) return;
      const int64_t key = pairs.first_key + pairs.key(i);
      const auto* at = all + dense_offset(g, bias, pairs.row(i).at) + key * bias.strides[3];
      score[i] = biased(score[i], static_cast<float>(Storage::widen(ptx::ld_global(at))));
    });
  });
}

template <bool kOwnsKeys>
PTX_FN void mask_pairs(const TensorView& mask, const Group& g,
                       const FragmentPairs<kOwnsKeys>& pairs, float (&score)[4]) {
  const auto* all = static_cast<const uint8_t*>(mask.data);
  for_pairs([&](int i) {
    if (!pairs.is_visible[i]) return;
    const int64_t key = pairs.first_key + pairs.key(i);
    if (all[dense_offset(g, mask, pairs.row(i).at) + key * mask.strides[3]] == 0)
      score[i] = negative_infinity();
  });
}

struct FragmentGradient {
  float p[4], ds[4];
  float slope[4];  // of the softcap
};

// From raw products and m dp: p of the scores to base 2, -infinity where masked, and
// ds = p (m dp - delta). `kHasRule`: some pair may be masked by rule. An option is a branch around
// the four.
template <bool kHasOptions, bool kHasRule, bool kOwnsKeys>
PTX_FN FragmentGradient differentiate_pairs(const BackwardArguments& a, const Group& g,
                                            const FragmentPairs<kOwnsKeys>& pairs,
                                            const float (&raw)[4], const float (&dropped_dp)[4]) {
  const Problem& p = a.params.problem;
  FragmentGradient r;
  float score[4];
  for_pairs([&](int i) { score[i] = raw[i] * pairs.row(i).scale, r.slope[i] = 1; });
  if constexpr (kHasOptions) {
    if (a.cap > 0)
      for_pairs([&](int i) {
        r.slope[i] = softcap_slope<ThreadMath<float>>(score[i], a.cap);
        score[i] = softcap<ThreadMath<float>>(score[i], a.cap);
      });
    if (is_present(p.bias)) add_pair_biases(p.bias, g, pairs, score);
    if (p.alibi_slopes)
      for_pairs([&](int i) { score[i] -= pairs.row(i).alibi * pair_distance(g, pairs, i); });
    if (is_present(p.mask)) mask_pairs(p.mask, g, pairs, score);
  }
  for_pairs([&](int i) {
    if (kHasRule && !pairs.is_visible[i]) score[i] = negative_infinity();
    const GradientRow& row = pairs.row(i);
    r.p[i] = ptx::ex2(score[i] - row.lse_log2);
    // A masked pair has no gradient even where its value or key is not finite.
    const bool is_masked = (kHasOptions || kHasRule) && score[i] == negative_infinity();
    r.ds[i] = is_masked ? 0 : score_gradient(r.p[i], dropped_dp[i], row.delta);
  });
  return r;
}

// `raw`: the score of pair i before its scale.
template <bool kOwnsKeys>
PTX_FN void add_row_sums(const Problem& p, const Group& g, const FragmentPairs<kOwnsKeys>& pairs,
                         int i, float raw, const FragmentGradient& r, float (&sums)[kNumRowSums]) {
  if (r.p[i] == 0) return;  // a masked key may hold anything
  const float slope = raw * r.slope[i];
  sums[kDs] += r.ds[i];
  sums[kMass] += r.p[i];
  sums[kScaleDs] += r.ds[i] * slope;
  sums[kScaleMass] += r.p[i] * slope;
  if (!p.alibi_slopes) return;
  const float distance = pair_distance(g, pairs, i);
  sums[kSlopeDs] -= r.ds[i] * distance;
  sums[kSlopeMass] -= r.p[i] * distance;
}

}  // namespace attnext::cuda::mma
