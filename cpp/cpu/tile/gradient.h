// The gradient of one panel's scores against one key tile: p and ds from s and dp, and the sums
// over a row's keys that the gradients of scale, ALiBi slopes, sinks and row biases are made of.
#pragma once

#include "attention/gradient.h"
#include "cpu/tile/load.h"
#include "cpu/tile/scores.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

// Sums over the keys of a row, in float64, of ds x and of p x: x = 1; x = raw score after the
// softcap's slope (for scale); x = -distance (for ALiBi). Why p too: RowBalance in
// attention/gradient.h.
enum RowSum { kDs, kMass, kScaleDs, kScaleMass, kSlopeDs, kSlopeMass, kNumRowSums };

struct RowSumsWanted {
  bool any, scale, slope;
};

template <class A>
struct GradientPanel {
  Panel<A> panel;
  double sums[kNumRowSums][kPanelLanes<A>];
  A* dout_t;  // [head_dim_v][lanes]
  A* dq_t;    // [head_dim][lanes]
  // Two numbers that add up to the lse to base 2: a single one rounds p where the lse is large.
  alignas(kVectorBytes) A lse_log2[kPanelLanes<A>], lse_rest[kPanelLanes<A>];
  alignas(kVectorBytes) A delta[kPanelLanes<A>];
};

// Tiles [kTileK][lanes].
template <class A>
struct GradientTiles {
  A *s, *dp, *raw, *softcap_slope, *scratch;
};

// s <- p, dp <- ds = p (m dp - delta), and the weights that met the values, p m, to `p_out` (rows
// `stride` apart).
template <class A>
static void differentiate_softmax(const Group& g, const GradientPanel<A>& panel,
                                  const KeyTile& tile, const GradientTiles<A>& t, A* p_out,
                                  int64_t stride) {
  const bool has_dropout = g.problem->dropout.probability > 0;
  if (has_dropout) load_dropout<A>(g, panel.panel, tile, t.scratch);
  const bool may_be_masked = is_masked(*g.problem, tile);
  const Vec<A> masked = splat<A>(A(-__builtin_inf()));
  for_scores(panel.panel, tile, [&](int64_t i, int64_t key, int lane) {
    const Vec<A> s = load<A>(t.s + i);
    const Vec<A> relative = s - load<A>(panel.lse_log2 + lane);
    const Vec<A> p = exp2<A>(relative - load<A>(panel.lse_rest + lane));
    const Vec<A> kept = has_dropout ? load<A>(t.scratch + i) : splat<A>(A(1));
    const Vec<A> ds = score_gradient(p, load<A>(t.dp + i) * kept, load<A>(panel.delta + lane));
    // A masked pair has no gradient even where its value or key is not finite.
    store<A>(t.dp + i, may_be_masked ? select<A>(s == masked, Vec<A>{}, ds) : ds);
    store<A>(t.s + i, p);
    store<A>(p_out + key * stride + lane, p * kept);
  });
}

// Adds the sums of ds x and p x over the tile's keys to those of the panel. `x(index, key, lane)`
// is a vector.
template <class A, class F>
static void add_row_sums(const KeyTile& tile, const GradientTiles<A>& t, RowSum ds_sum,
                         RowSum p_sum, GradientPanel<A>* panel, F&& x) {
  const int lanes = lanes_of(panel->panel);
  const int64_t num_keys = tile.keys.end - tile.keys.begin;
  for (int lane = 0; lane < lanes; lane += kLanes<A>) {
    Vec<A> ds{}, p{};
    for (int64_t key = 0; key < num_keys; ++key) {
      const int64_t i = key * lanes + lane;
      const Vec<A> factor = x(i, key, lane);
      ds += load<A>(t.dp + i) * factor;
      p += load<A>(t.s + i) * factor;
    }
    for (int i = 0; i < kLanes<A>; ++i) {
      panel->sums[ds_sum][lane + i] += static_cast<double>(ds[i]);
      panel->sums[p_sum][lane + i] += static_cast<double>(p[i]);
    }
  }
}

template <class A>
static void sum_rows(const Group& g, const KeyTile& tile, const GradientTiles<A>& t,
                     const RowSumsWanted& wanted, GradientPanel<A>* panel) {
  add_row_sums<A>(tile, t, kDs, kMass, panel, [](int64_t, int64_t, int) { return splat<A>(A(1)); });
  if (wanted.slope) {
    alignas(kVectorBytes) A position[kPanelLanes<A>];
    relative_positions<A>(g, panel->panel, tile, position);
    add_row_sums<A>(tile, t, kSlopeDs, kSlopeMass, panel, [&](int64_t, int64_t key, int lane) {
      return -alibi_distance(load<A>(position + lane), splat<A>(static_cast<A>(key)));
    });
  }
  if (!wanted.scale) return;
  const bool has_softcap = g.problem->softcap > 0;
  add_row_sums<A>(tile, t, kScaleDs, kScaleMass, panel, [&](int64_t i, int64_t, int) {
    return has_softcap ? load<A>(t.raw + i) * load<A>(t.softcap_slope + i) : load<A>(t.raw + i);
  });
}

// ds by the final score -> ds by the raw sum over d, to `ds_out`.
template <class A>
static void differentiate_modifiers(const Group& g, const KeyTile& tile, const GradientTiles<A>& t,
                                    const GradientPanel<A>& panel, A* ds_out, int64_t stride) {
  const bool has_softcap = g.problem->softcap > 0, is_root = g.problem->score == Score::kNegL2;
  for_scores(panel.panel, tile, [&](int64_t i, int64_t key, int lane) {
    Vec<A> ds = load<A>(t.dp + i) * (load<A>(panel.panel.scale + lane) * A(kLn2));
    if (has_softcap) ds *= load<A>(t.softcap_slope + i);
    if (is_root) ds *= finish_neg_l2_slope(load<A>(t.raw + i));
    store<A>(ds_out + key * stride + lane, ds);
  });
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
