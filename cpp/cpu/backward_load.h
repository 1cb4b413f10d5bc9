// What an item of backward works on: its memory, a block of query rows as the products read them,
// and the rows of its chunk of keys.
#pragma once

#include <cmath>

#include "cpu/backward_chunks.h"
#include "cpu/tile/bias_gradient.h"
#include "cpu/tile/store.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

// Which of the five products are asked for, beside the scores; the additive score has its own.
struct ProductsWanted {
  bool dp, dq, dk, dv;
};

ATTNEXT_HD ProductsWanted products_wanted(const BackwardParams& params) {
  const bool dq = is_present(params.dq) || params.dscore_bias, dk = is_present(params.dk);
  const bool has_sums = params.dscale || params.dalibi_slopes || params.dsinks || params.dweight ||
                        is_present(params.dbias);
  return {dq || dk || has_sums, dq, dk, is_present(params.dv)};
}

// Sums shared by all items, in the accumulator type. Rows of a group lie together: row_base(..) +
// row.
template <class A>
struct BackwardSums {
  int64_t* queries_before;  // [batch + 1]: queries of the sequences before
  int64_t* keys_before;     // [batch + 1]
  int64_t* progress;        // [items]
  A *lse_log2, *lse_rest;   // [rows], see GradientPanel
  A* delta;                 // [rows]
  double* rows;             // [rows, kNumRowSums], null where not wanted
  A* bias_keys;             // [heads x keys], null where not wanted
  double* weight;           // [items, group_size, padded head_dim], null where not wanted
  A* dq;                    // [rows, padded head_dim], null: dq itself is added to
  TensorView dbias;         // by query and key: itself, or accumulators; a broadcast view
  BiasSum bias_sum;
  ProductsWanted wanted;
};

template <class A>
struct BackwardScratch {
  GradientPanel<A>* panels;
  int num_panels;
  A *q_t[kMaxPanels], *weight_t[kMaxPanels];
  A *q, *dout;  // the block's rows [kTileQ, padded], in place or in the buffers
  A *q_buffer, *dout_buffer;
  A* dq;                     // of the additive score: what this item adds to them
  A *k, *v;                  // the chunk's rows, where they cannot be read in place
  Pair* k_pairs;             // of paired terms: the chunk's keys, interleaved
  Pair* row_pairs;           // and a panel's rows on their way to q_t and dout_t
  A *dk, *dv;                // [keys of the chunk, padded], in place or in the buffers
  A *dk_buffer, *dv_buffer;  // [kLongChunkKeys, padded]
  A *p, *ds;                 // [kTileK][lanes of all panels]
  A* bias_keys;              // [group_size, kLongChunkKeys]
  A* weight;                 // [group_size, padded head_dim] of the additive score
  double* dweight;           // likewise
  GradientTiles<A> tiles;
  RowsAhead ahead[4];   // what the tile at work asks for meanwhile
  double riding_scale;  // of the item's heads, see riding_scale()
};

// Keys of a tile: long ones would leave more on a diagonal.
ATTNEXT_HD int64_t gradient_tile_k(const Problem& p) {
  const bool is_long = !has_rule(p) && (is_paired(p) || is_present(p.bias));
  return is_long ? kLongGradientTileK : kGradientTileK;
}

template <class A>
ATTNEXT_HD int64_t padded(int64_t elements) {
  return round_up(elements, kLanes<A>);
}

template <class A>
static BackwardScratch<A> carve_backward(const Problem& p, Arena* arena) {
  const int64_t d = padded<A>(p.head_dim), dv = padded<A>(p.head_dim_v), lanes = kPanelLanes<A>;
  BackwardScratch<A> w;
  w.panels = take<GradientPanel<A>>(arena, kMaxPanels);
  for (int i = 0; i < kMaxPanels; ++i) {
    w.q_t[i] = take<A>(arena, d * lanes);
    w.weight_t[i] = take<A>(arena, p.weight ? d * lanes : 0);
    A* dout_t = take<A>(arena, dv * lanes);
    A* dq_t = take<A>(arena, d * lanes);
    if (!arena->base) continue;
    w.panels[i].dout_t = dout_t;
    w.panels[i].dq_t = dq_t;
  }
  w.q = w.q_buffer = take<A>(arena, kTileQ<A> * d);
  w.dout = w.dout_buffer = take<A>(arena, kTileQ<A> * dv);
  w.dq = take<A>(arena, p.weight ? kTileQ<A> * d : 0);
  w.k = take<A>(arena, kLongChunkKeys * d);
  w.v = take<A>(arena, kLongChunkKeys * dv);
  w.k_pairs = take<Pair>(arena, is_paired(p) ? kLongChunkKeys / 2 * d : 0);
  w.row_pairs =
      take<Pair>(arena, is_paired(p) ? lanes * paired_width(max_of(p.head_dim, p.head_dim_v)) : 0);
  w.dk = w.dk_buffer = take<A>(arena, kLongChunkKeys * d);
  w.dv = w.dv_buffer = take<A>(arena, kLongChunkKeys * dv);
  const int64_t tile_k = gradient_tile_k(p);
  w.p = take<A>(arena, tile_k * kTileQ<A>);
  w.ds = take<A>(arena, tile_k * kTileQ<A>);
  w.bias_keys = take<A>(arena, p.group_size * kLongChunkKeys);
  w.weight = take<A>(arena, p.weight ? p.group_size * d : 0);
  w.dweight = take<double>(arena, p.weight ? p.group_size * d : 0);
  for (A** tile : {&w.tiles.p, &w.tiles.ds, &w.tiles.raw, &w.tiles.softcap_slope})
    *tile = take<A>(arena, tile_k * lanes);
  w.tiles.ds_pairs = take<Pair>(arena, is_paired(p) ? tile_k / 2 * lanes : 0);
  const bool has_dropout = p.dropout.probability > 0;
  w.tiles.dropout = take<A>(arena, has_dropout ? tile_k * lanes : 0);
  w.tiles.kept = take<BitWord<A>>(arena, has_dropout ? kBitWords<A> : 0);
  w.tiles.modifiers = take_modifiers<A>(p, arena);
  return w;
}

template <class A>
ATTNEXT_HD int64_t row_base(const BackwardSums<A>& sums, const Group& g) {
  return sums.queries_before[g.sequence] * g.problem->num_heads_q + g.head_kv * g.num_rows;
}

// Rows that lie one after another in the accumulator's type, whole vectors each.
template <class A>
ATTNEXT_HD bool is_packed(const TensorView& t, int64_t elements) {
  return dtype_of(t) == kAccumulatorDType<A> && t.strides[3] == 1 && t.strides[2] == elements &&
         padded<A>(elements) == elements;
}

// Such rows of q and dout are read in place.
template <class A>
ATTNEXT_HD bool is_packed_in_place(const Problem& p, const TensorView& t, int64_t elements) {
  return p.group_size == 1 && is_packed<A>(t, elements);
}

// Whether what is constant along a row is multiplied into its q and dout, and not into each of its
// scores and their gradients: where no more can be asked for than dq, dk and dv. (Nearly: of a
// scale per head, only whether its gradient is asked for is known here.)
template <class A, class Term>
ATTNEXT_HD bool has_loaded_rows(const Problem& p, const BackwardSums<A>& sums) {
  return Term::kIsBilinear && !kIsPaired<Term> && !is_present(p.bias) && !p.alibi_slopes &&
         !p.sinks && !sums.rows;
}

// Of pairs, which that would round once more, the factor from ds by the score to ds by the raw sum
// rides on p instead: p times the scale is one more term of its exponent, and dv is divided by it
// in the end. Where nothing else is made of p and ds, and one factor will do for the heads of a
// group. 0: it does not ride.
template <class A, class Term>
static double riding_scale(const Group& g, const BackwardSums<A>& sums) {
  constexpr double kLeast = 0x1p-20, kMost = 0x1p20;
  const double* scale = g.problem->scale + g.head_kv * g.problem->group_size;
  if (!kIsPaired<Term> || sums.rows || sums.bias_sum != BiasSum::kNone) return 0;
  for (int64_t head = 0; head < g.problem->group_size; ++head)
    if (scale[head] != scale[0]) return 0;
  return scale[0] >= kLeast && scale[0] <= kMost ? scale[0] : 0;
}

// The block's rows of q and dout as numbers, padded. Where they are loaded, p is taken relative to
// a rounded lse, and what the rounding took from p is given to dout: dv = pT dout and ds = p (dp -
// delta) stay what they are.
template <class A>
static void load_rows_of_block(const BackwardParams& params, const BackwardSums<A>& sums,
                               bool is_loaded, const Group& g, Span rows, BackwardScratch<A>& w) {
  const Problem& p = params.problem;
  const TensorView& dout = params.dout;
  const int64_t width = padded<A>(p.head_dim), width_v = padded<A>(p.head_dim_v);
  w.q = w.q_buffer;
  w.dout = w.dout_buffer;
  if (!is_loaded && is_packed_in_place<A>(p, dout, p.head_dim_v)) {
    w.dout = reinterpret_cast<A*>(row_pointer(g, dout, rows.begin));
  } else {
    const A* rests = sums.lse_rest + row_base(sums, g);
    for (int64_t row = rows.begin; row < rows.end; ++row)
      load_row<A>(row_pointer(g, dout, row), dtype_of(dout), dout.strides[3], p.head_dim_v,
                  w.dout_buffer + (row - rows.begin) * width_v,
                  is_loaded ? power_of_rest(rests[row]) : A(1));
  }
  if (is_packed_in_place<A>(p, p.q, p.head_dim) && p.score != Score::kCosine && !p.score_bias) {
    w.q = reinterpret_cast<A*>(row_pointer(g, p.q, rows.begin));
    return;
  }
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    A* q = w.q_buffer + (row - rows.begin) * width;
    load_row<A>(row_pointer(g, p.q, row), dtype_of(p.q), p.q.strides[3], p.head_dim, q);
    if (p.score == Score::kCosine) normalise_row<A>(q, width);
    if (p.score_bias)
      for (int64_t d = 0; d < p.head_dim; ++d)
        q[d] += static_cast<A>(p.score_bias[head_of(g, row) * p.head_dim + d]);
  }
}

// The same of paired terms: two rows interleaved.
[[maybe_unused]] static void load_row_pairs_of_block(const BackwardParams& params, const Group& g,
                                                     Span rows, BackwardScratch<float>& w) {
  const Problem& p = params.problem;
  const auto interleave = [&](const TensorView& t, int64_t elements, float* out) {
    interleave_rows(rows.end - rows.begin, t.strides[3], elements, padded<float>(elements),
                    reinterpret_cast<Pair*>(out),
                    [&](int64_t i) { return row_pointer(g, t, rows.begin + i); });
  };
  interleave(p.q, p.head_dim, w.q_buffer);
  interleave(params.dout, p.head_dim_v, w.dout_buffer);
  w.q = w.q_buffer;
  w.dout = w.dout_buffer;
}

// out_t[d][lane] of a panel, from padded rows `stride` apart.
template <class A>
static void transpose_rows(const Panel<A>& panel, const A* rows, int64_t stride, int64_t elements,
                           A* out_t) {
  LaneRows<A> lanes{};
  lanes.dtype = kAccumulatorDType<A>;
  lanes.stride = 1;
  for (int lane = 0; lane < lanes_of(panel); ++lane)
    lanes.row[lane] = reinterpret_cast<const char*>(
        rows + min_of(lane, panel.rows.end - panel.rows.begin - 1) * stride);
  load_transposed<A>(lanes, panel.vectors, 0, elements, out_t);
}

// The constants of a panel's rows. The factor of slopes that are differences rides on ds: once a
// pair, not once a product. Beside a scale that rides on p, the rest of lse is left out: p is
// rounded to far fewer bits.
template <class A, class Term>
static void load_row_constants(const BackwardSums<A>& sums, const Group& g, double riding_scale,
                               GradientPanel<A>* panel) {
  const int64_t base = row_base(sums, g);
  constexpr double factor = kIsOfDifferences<Term> ? SquareTerm::kSlopeFactor : 1;
  const A scale_log2 = riding_scale > 0 ? static_cast<A>(std::log2(riding_scale)) : A(0);
  for (int lane = 0; lane < lanes_of(panel->panel); ++lane) {
    const int64_t row = base + min_of(panel->panel.rows.begin + lane, panel->panel.rows.end - 1);
    panel->lse_log2[lane] = sums.lse_log2[row];
    panel->lse_rest[lane] = sums.lse_rest[row];
    panel->delta[lane] = sums.delta[row];
    panel->ds_scale[lane] = static_cast<A>(g.problem->scale[panel->panel.head[lane]] * factor);
    if (riding_scale == 0) continue;
    panel->lse_log2[lane] -= scale_log2;
    panel->lse_rest[lane] = A(0);
    panel->ds_scale[lane] = A(1);
  }
}

// The constants of a panel whose rows are loaded move into its transposed q and dout, and delta.
template <class A>
static void load_constants_into_rows(int64_t head_dim, int64_t head_dim_v,
                                     GradientPanel<A>* panel) {
  ride_on_queries<A>(head_dim, &panel->panel);
  scale_lanes<A>(panel->panel.vectors, head_dim_v, panel->ds_scale, panel->dout_t);
  for (int lane = 0; lane < lanes_of(panel->panel); ++lane) {
    panel->delta[lane] *= panel->ds_scale[lane] * power_of_rest(panel->lse_rest[lane]);
    panel->lse_rest[lane] = A(0);
    panel->ds_scale[lane] = A(1);
  }
}

// A block's queries, outputs' gradients and row constants, transposed and as they are.
template <class A, class Term>
static void load_gradient_block(const BackwardParams& params, const BackwardSums<A>& sums,
                                const Group& g, Span rows, BackwardScratch<A>& w) {
  const Problem& p = params.problem;
  const int64_t width = padded<A>(p.head_dim), width_v = padded<A>(p.head_dim_v);
  const bool is_loaded = has_loaded_rows<A, Term>(p, sums);
  if constexpr (kIsPaired<Term>)
    load_row_pairs_of_block(params, g, rows, w);
  else
    load_rows_of_block<A>(params, sums, is_loaded, g, rows, w);
  w.num_panels = static_cast<int>(divide_up(rows.end - rows.begin, kPanelLanes<A>));
  for (int i = 0; i < w.num_panels; ++i) {
    GradientPanel<A>& panel = w.panels[i];
    const int64_t first = i * kPanelLanes<A>, begin = rows.begin + first;
    describe_rows<A>(g, {begin, min_of(begin + kPanelLanes<A>, rows.end)}, &panel.panel);
    panel.panel.q_t = w.q_t[i];
    panel.panel.weight_t = w.weight_t[i];
    if constexpr (kIsPaired<Term>) {
      load_transposed_pairs(g, panel.panel, p.q, p.head_dim, w.row_pairs,
                            reinterpret_cast<Pair*>(w.q_t[i]));
      load_transposed_pairs(g, panel.panel, params.dout, p.head_dim_v, w.row_pairs,
                            reinterpret_cast<Pair*>(panel.dout_t));
    } else {
      transpose_rows<A>(panel.panel, w.q + first * width, width, p.head_dim, w.q_t[i]);
      transpose_rows<A>(panel.panel, w.dout + first * width_v, width_v, p.head_dim_v, panel.dout_t);
      if (p.weight) load_head_vectors<A>(panel.panel, p.weight, p.head_dim, false, w.weight_t[i]);
    }
    std::memset(panel.dq_t, 0, sizeof(A) * p.head_dim * lanes_of(panel.panel));
    std::memset(panel.sums, 0, sizeof(panel.sums));
    load_row_constants<A, Term>(sums, g, w.riding_scale, &panel);
    if (is_loaded) load_constants_into_rows(p.head_dim, p.head_dim_v, &panel);
  }
}

template <class E>
ATTNEXT_HD RowBlock<E> rows_after(RowBlock<E> rows, int64_t count) {
  return {rows.data + count * rows.stride, rows.stride};
}

// Slopes that read k read numbers.
template <class A>
ATTNEXT_HD RowBlock<A> plain_rows(RowBlock<A> k) {
  return k;
}
ATTNEXT_HD RowBlock<float> plain_rows(RowBlock<Pair>) { return {}; }

// The chunk's rows, or those of a tile of it, as the products read them.
template <class A, class Term>
struct KeyRows {
  RowBlock<Operand<Term, A>> k, v;   // for s and dp
  RowBlock<Operand<Term, A>> k_sum;  // for dq, which sums over keys
};

template <class A, class Term>
ATTNEXT_HD KeyRows<A, Term> rows_from(const KeyRows<A, Term>& rows, int64_t key) {
  return {rows_after(rows.k, key), rows_after(rows.v, key),
          rows_after(rows.k_sum, key / kPack<Term>)};
}

template <class A, class Term>
static KeyRows<A, Term> load_chunk(const Group& g, Span chunk, BackwardScratch<A>& w) {
  const Problem& p = *g.problem;
  if constexpr (kIsPaired<Term>) {
    return {load_row_pairs(g, p.k, p.head_dim, chunk, reinterpret_cast<Pair*>(w.k)),
            load_row_pairs(g, p.v, p.head_dim_v, chunk, reinterpret_cast<Pair*>(w.v)),
            load_interleaved_rows(g, p.k, p.head_dim, chunk, w.k_pairs)};
  } else {
    const Padding padding = Term::kIsBilinear ? Padding::kNone : Padding::kZeros;
    const RowBlock<A> k = load_keys<A>(g, chunk, padding, w.k);
    return {k, load_values<A>(g, chunk, Padding::kNone, w.v), k};
  }
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
