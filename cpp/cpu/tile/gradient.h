// The gradient of one panel's scores against one key tile: p and ds from s and dp, and what ds means for the inputs that
// act on scores directly (bias, ALiBi slopes, scale).
#pragma once

#include "attention/gradient.h"
#include "cpu/tile/load.h"
#include "cpu/tile/scores.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

// Per-row sums over the keys of a chunk.
template <class A>
struct RowSums {
  alignas(kVectorBytes) A scale[kPanelLanes<A>];  // ds raw
  alignas(kVectorBytes) A slope[kPanelLanes<A>];  // - ds distance
  alignas(kVectorBytes) A bias[kPanelLanes<A>];   // ds, where one bias serves all keys of a row
};

template <class A>
struct GradientPanel {
  Panel<A> panel;
  RowSums<A> sums;
  A* dout_t;  // [head_dim_v][lanes]
  A* dq_t;    // [head_dim][lanes]
  alignas(kVectorBytes) A lse_log2[kPanelLanes<A>];
  alignas(kVectorBytes) A delta[kPanelLanes<A>];
};

// Tiles [kTileK][lanes].
template <class A>
struct GradientTiles {
  A *s, *dp, *raw, *tanh, *scratch;
};

// Which of the sums are wanted.
struct RowSumsWanted {
  bool scale, slope, bias;
};

// s <- p, dp <- ds = p (m dp - delta), and the weights that met the values, p m, to `p_out` (rows `stride` apart).
template <class A>
static void differentiate_softmax(const Group& g, const GradientPanel<A>& panel, const KeyTile& tile,
                                  const GradientTiles<A>& t, A* p_out, int64_t stride) {
  const bool has_dropout = g.problem->dropout.probability > 0;
  if (has_dropout) load_dropout<A>(g, panel.panel, tile, t.scratch);
  const bool may_be_masked = is_masked(*g.problem, tile);
  const Vec<A> masked = splat<A>(A(-__builtin_inf()));
  for_scores(panel.panel, tile, [&](int64_t i, int64_t key, int lane) {
    const Vec<A> s = load<A>(t.s + i);
    const Vec<A> p = exp2<A>(s - load<A>(panel.lse_log2 + lane));
    const Vec<A> kept = has_dropout ? load<A>(t.scratch + i) : splat<A>(A(1));
    const Vec<A> ds = score_gradient(p, load<A>(t.dp + i) * kept, load<A>(panel.delta + lane));
    // A masked pair has no gradient even where its value or key is not finite.
    store<A>(t.dp + i, may_be_masked ? select<A>(s == masked, Vec<A>{}, ds) : ds);
    store<A>(p_out + key * stride + lane, p * kept);
  });
}

template <class A>
static void sum_bias_rows(const KeyTile& tile, GradientPanel<A>* panel, const A* ds) {
  for_scores(panel->panel, tile, [&](int64_t i, int64_t, int lane) {
    store<A>(panel->sums.bias + lane, load<A>(panel->sums.bias + lane) + load<A>(ds + i));
  });
}

template <class A>
static void sum_slope_rows(const Group& g, const KeyTile& tile, GradientPanel<A>* panel, const A* ds) {
  alignas(kVectorBytes) A position[kPanelLanes<A>];
  relative_positions<A>(g, panel->panel, tile, position);
  for_scores(panel->panel, tile, [&](int64_t i, int64_t key, int lane) {
    const Vec<A> distance = alibi_distance(load<A>(position + lane), splat<A>(static_cast<A>(key)));
    store<A>(panel->sums.slope + lane, load<A>(panel->sums.slope + lane) - load<A>(ds + i) * distance);
  });
}

// ds by the final score -> ds by the raw sum over d, to `ds_out`; the sums by scale on the way.
template <class A>
static void differentiate_modifiers(const Group& g, const KeyTile& tile, const GradientTiles<A>& t,
                                    const RowSumsWanted& wanted, GradientPanel<A>* panel, A* ds_out, int64_t stride) {
  const Problem& p = *g.problem;
  const bool has_softcap = p.softcap > 0, is_root = p.score == Score::kNegL2;
  for_scores(panel->panel, tile, [&](int64_t i, int64_t key, int lane) {
    Vec<A> ds = load<A>(t.dp + i);
    if (has_softcap) ds *= softcap_slope(load<A>(t.tanh + i));
    if (wanted.scale)
      store<A>(panel->sums.scale + lane, load<A>(panel->sums.scale + lane) + ds * load<A>(t.raw + i));
    ds *= load<A>(panel->panel.scale + lane) * A(kLn2);
    if (is_root) ds *= finish_neg_l2_slope(load<A>(t.raw + i));
    store<A>(ds_out + key * stride + lane, ds);
  });
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
