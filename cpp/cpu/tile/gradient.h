// The gradient of one panel's scores against one key tile: p and ds from s and dp, and the sums
// over a row's keys that the gradients of scale, ALiBi slopes, sinks and row biases are made of.
#pragma once

#include "attention/gradient.h"
#include "cpu/tile/dropout.h"
#include "cpu/tile/load_pairs.h"
#include "cpu/tile/rows_ahead.h"

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
  alignas(kVectorBytes) A ds_scale[kPanelLanes<A>];  // from ds by the score to ds by the raw sum
};

// 2^-rest of a number that is far below 1.
template <class A>
ATTNEXT_HD A power_of_rest(A rest) {
  return A(1) - rest * A(kLn2);
}

// Tiles [kTileK][lanes].
template <class A>
struct GradientTiles {
  A *p, *ds;  // of the final score, where sums over them are wanted or dropout tells p from p m
  A *raw, *softcap_slope, *dropout;
  BitWord<A>* kept;  // [kBitWords]
  Pair* ds_pairs;    // [keys / 2][lanes]
  ModifierScratch<A>* modifiers;
};

// What p and ds lie in for the products that sum over rows: pairs along rows are bfloat16.
template <class A, class Term>
using Stored = std::conditional_t<kIsPaired<Term>, uint16_t, A>;

// Where the results for one panel and key tile go, rows `stride` apart: the weights that met the
// values, p m, and ds by the raw sum over d; of paired terms ds once more, in pairs along keys.
template <class A, class Term>
struct GradientRows {
  Stored<A, Term>*p, *ds;
  int64_t stride;
  Pair* ds_pairs;  // [keys / 2][lanes], null unless paired
};

template <class A, int kKeys, int kVectors, class S>
ATTNEXT_HD void store_rows(const Vec<A> (&tile)[kKeys][kVectors], S* to, int64_t stride) {
  if constexpr (std::is_same_v<S, A>) {
    store_tile<A>(tile, to, stride);
  } else {
    ATTNEXT_UNROLL for (int i = 0; i < kKeys; ++i) ATTNEXT_UNROLL for (int j = 0; j < kVectors; ++j)
        store_bfloat(to + i * stride + j * kLanes<A>, tile[i][j]);
  }
}

// Whether a segment's scores are scaled and nothing else, and only dq, dk and dv are wanted of
// them. Compiled apart: code that is jumped over costs registers and time.
template <class A>
ATTNEXT_HD bool is_plain(const Modifiers<A>& m, const A* dropout, const A* ds) {
  return !dropout && !ds && !changes_scores(m);
}

// p = 2^(s - lse) from the registers.
template <class A, class Term>
struct RebuildWeights {
  Modifiers<A> modifiers;
  const A *lse_log2, *lse_rest;  // [lanes]
  const A* dropout;              // null: none
  A* p;                          // [keys][lanes], null: not wanted
  GradientRows<A, PlainDot<Term>> rows;
  RowsAhead* ahead;  // [2]
  inline __attribute__((always_inline)) void move_to(int64_t lane) {
    ATTNEXT_ISA_NAMESPACE::move_to<A>(lane, &modifiers);
    lse_log2 += lane;
    lse_rest += lane;
    if (dropout) dropout += lane;
    if (p) p += lane;
    rows.p += lane;
  }
  template <int kKeys, int kVectors>
  inline __attribute__((always_inline)) void finish(int64_t key, Vec<A> (&s)[kKeys][kVectors]) {
    const int64_t stride = modifiers.stride;
    fetch_rows(&ahead[0]);
    fetch_rows(&ahead[1]);
    modify<A>(modifiers, key, s);
    ATTNEXT_UNROLL for (int j = 0; j < kVectors; ++j) {
      const Vec<A> lse = load<A>(lse_log2 + j * kLanes<A>),
                   rest = load<A>(lse_rest + j * kLanes<A>);
      ATTNEXT_UNROLL for (int i = 0; i < kKeys; ++i) s[i][j] = exp2<A>(s[i][j] - lse - rest);
    }
    if (p) store_tile<A>(s, p + key * stride, stride);
    if (dropout)
      ATTNEXT_UNROLL for (int i = 0; i < kKeys; ++i)
          ATTNEXT_UNROLL for (int j = 0; j < kVectors; ++j) s[i][j] *=
          load<A>(dropout + (key + i) * stride + j * kLanes<A>);
    store_rows<A>(s, rows.p + key * rows.stride, rows.stride);
  }
};

// ds = p (m dp - delta) by the final score, then by the raw sum, dp from the registers; `Term` is
// that of the product which made it.
template <class A, class Term>
struct DifferentiateSoftmax {
  Modifiers<A> modifiers;
  const A *delta, *ds_scale;  // [lanes]
  const A *dropout, *p;       // [keys][lanes], null: none, and p is that of `rows` (not of paired)
  A* ds;                      // [keys][lanes], null: not wanted
  bool may_be_masked;
  GradientRows<A, Term> rows;
  RowsAhead* ahead;  // [2]
  inline __attribute__((always_inline)) void move_to(int64_t lane) {
    ATTNEXT_ISA_NAMESPACE::move_to<A>(lane, &modifiers);
    delta += lane;
    ds_scale += lane;
    if (dropout) dropout += lane;
    if (p) p += lane;
    if (ds) ds += lane;
    rows.p += lane;
    rows.ds += lane;
    if (rows.ds_pairs) rows.ds_pairs += lane;
  }
  template <int kKeys, int kVectors>
  inline __attribute__((always_inline)) void finish(int64_t key, Vec<A> (&dp)[kKeys][kVectors]) {
    fetch_rows(&ahead[0]);
    fetch_rows(&ahead[1]);
    const int64_t stride = modifiers.stride, weights_stride = p ? stride : rows.stride;
    const A* weights = (p ? p : reinterpret_cast<const A*>(rows.p)) + key * weights_stride;
    if (dropout)
      for_vectors<A>(dp, [&](Vec<A>& x, int i, int lane) {
        x *= load<A>(dropout + (key + i) * stride + lane);
      });
    for_vectors<A>(dp, [&](Vec<A>& x, int i, int lane) {
      x = score_gradient(load<A>(weights + i * weights_stride + lane), x, load<A>(delta + lane));
    });
    // A masked pair has no gradient even where its value or key is not finite.
    if (may_be_masked)
      for_vectors<A>(dp, [&](Vec<A>& x, int i, int lane) {
        x = select<A>(load<A>(weights + i * weights_stride + lane) == Vec<A>{}, Vec<A>{}, x);
      });
    if (ds) store_tile<A>(dp, ds + key * stride, stride);
    for_vectors<A>(dp, [&](Vec<A>& x, int, int lane) { x *= load<A>(ds_scale + lane); });
    if (modifiers.cap > 0) {
      const A* slope = modifiers.trace.softcap_slope + key * stride;
      for_vectors<A>(dp,
                     [&](Vec<A>& x, int i, int lane) { x *= load<A>(slope + i * stride + lane); });
    }
    if (modifiers.is_root) {
      const A* raw = modifiers.trace.raw + key * stride;
      for_vectors<A>(dp, [&](Vec<A>& x, int i, int lane) {
        x *= finish_neg_l2_slope(load<A>(raw + i * stride + lane));
      });
    }
    store_rows<A>(dp, rows.ds + key * rows.stride, rows.stride);
    if constexpr (kIsPaired<Term>)
      ATTNEXT_UNROLL for (int j = 0; j < kVectors; ++j)
          store_weights<Term, A>(dp, j, key, stride, rows.ds_pairs + j * kLanes<A>);
  }
};

// Keeps a tile's sums where they are: in registers.
template <class A, int kKeys, int kVectors>
struct KeepTile {
  Vec<A> (&kept)[kKeys][kVectors];
  inline __attribute__((always_inline)) void finish(int64_t, Vec<A> (&sum)[kKeys][kVectors]) {
    ATTNEXT_UNROLL for (int i = 0; i < kKeys; ++i) ATTNEXT_UNROLL for (int j = 0; j < kVectors; ++j)
        kept[i][j] = sum[i][j];
  }
};

// Plain scores: tiles of s and of dp of the same keys follow each other, p at hand for ds (in
// registers where there are 32). The constants of rows of numbers were multiplied into them; of
// pairs the scale of ds rides on p (backward_load.h). Pointers are those of the first lane.
template <class A, class Term>
struct DifferentiatePlain {
  RowBlock<Operand<Term, A>> k, v;
  const Operand<Term, A>*q_t, *dout_t;
  int64_t depth, depth_v, stride;     // `stride`: lanes of the panel
  const A *scale, *lse_log2, *delta;  // [lanes]
  GradientRows<A, Term> rows;
  RowsAhead* ahead;  // [4]
  template <int kKeys, int kVectors>
  inline __attribute__((always_inline)) void visit(int64_t key) const {
    for (int i = 0; i < 4; ++i) fetch_rows(&ahead[i]);
    Vec<A> p[kKeys][kVectors] = {}, ds[kKeys][kVectors] = {};
    KeepTile<A, kKeys, kVectors> keep_p{p}, keep_ds{ds};
    score_tile<A, Term, kKeys, kVectors>(k, key, q_t, nullptr, stride, depth, keep_p);
    ATTNEXT_UNROLL for (int j = 0; j < kVectors; ++j) {
      const int lane = j * kLanes<A>;
      const Vec<A> lse = load<A>(lse_log2 + lane);
      ATTNEXT_UNROLL for (int i = 0; i < kKeys; ++i) {
        if constexpr (kIsPaired<Term>)
          p[i][j] = exp2<A, ShortExp2Coefficients>(p[i][j] * load<A>(scale + lane) - lse);
        else
          p[i][j] = exp2<A>(p[i][j] - lse);
      }
    }
    store_rows<A>(p, rows.p + key * rows.stride, rows.stride);
    score_tile<A, Term, kKeys, kVectors>(v, key, dout_t, nullptr, stride, depth_v, keep_ds);
    ATTNEXT_UNROLL for (int j = 0; j < kVectors; ++j) {
      const Vec<A> row_delta = load<A>(delta + j * kLanes<A>);
      ATTNEXT_UNROLL for (int i = 0; i < kKeys; ++i) ds[i][j] =
          score_gradient(p[i][j], ds[i][j], row_delta);
    }
    store_rows<A>(ds, rows.ds + key * rows.stride, rows.stride);
    if constexpr (kIsPaired<Term>)
      ATTNEXT_UNROLL for (int j = 0; j < kVectors; ++j)
          store_weights<Term, A>(ds, j, key, stride, rows.ds_pairs + j * kLanes<A>);
  }
};

template <class A, class Term>
static void differentiate_plain(int vectors, Span keys, const DifferentiatePlain<A, Term>& tile) {
  with_vectors(vectors, [&](auto v) {
    for_tiles<kScoreKeys>(
        keys.end, [&](auto rows, int64_t key) { tile.template visit<rows.value, v.value>(key); },
        keys.begin);
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
      ds += load<A>(t.ds + i) * factor;
      p += load<A>(t.p + i) * factor;
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

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
