// What a panel is: up to kPanelLanes query rows side by side in SIMD lanes, with all that the
// scores of a row depend on.
#pragma once

#include "cpu/tile/rows.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

template <class A>
struct Panel {
  Span rows;     // of the group
  Span queries;  // of those rows
  int vectors;  // lanes = vectors * kLanes; lanes beyond the rows repeat the last one and are never
                // stored
  A* q_t;       // [head_dim][lanes]
  A* weight_t;  // [head_dim][lanes], additive score only
  alignas(kVectorBytes)
      A scale[kPanelLanes<A>];  // what a raw score is multiplied by to be a score to base 2
  alignas(kVectorBytes) A slope[kPanelLanes<A>];  // ALiBi, base 2
  int64_t query[kPanelLanes<A>];
  int64_t head[kPanelLanes<A>];
};

template <class A>
ATTNEXT_HD int lanes_of(const Panel<A>& panel) {
  return panel.vectors * kLanes<A>;
}

// Where the rows of each lane begin, of one tensor.
template <class A>
struct LaneRows {
  const char* row[kPanelLanes<A>];
  DType dtype;
  int64_t stride;   // in elements, along the row
  bool is_uniform;  // every lane reads the same row
};

// `pointer(row)`: the start of that row.
template <class A, class F>
ATTNEXT_HD LaneRows<A> lane_rows(const Panel<A>& panel, const TensorView& t, int axis,
                                 F&& pointer) {
  LaneRows<A> lanes;
  lanes.dtype = dtype_of(t);
  lanes.stride = t.strides[axis];
  lanes.is_uniform = true;
  for (int lane = 0; lane < lanes_of(panel); ++lane) {
    lanes.row[lane] = pointer(min_of(panel.rows.begin + lane, panel.rows.end - 1));
    lanes.is_uniform = lanes.is_uniform && lanes.row[lane] == lanes.row[0];
  }
  return lanes;
}

// out[i][lane] = element i of row[lane] for one vector of lanes, `count` whole vectors of elements.
template <class A>
static void load_transposed_vectors(const char* const* row, int64_t begin, int64_t count, int lanes,
                                    A* out) {
  for (int64_t i = 0; i < count; i += kLanes<A>) {
    Vec<A> block[kLanes<A>];
    // So many rows at once are more streams than the hardware would prefetch.
    ATTNEXT_UNROLL for (int lane = 0; lane < kLanes<A>; ++lane) {
      const A* from = reinterpret_cast<const A*>(row[lane]) + begin + i;
      block[lane] = load_unaligned<A>(from);
      __builtin_prefetch(from + 2 * kLanes<A>);
    }
    transpose<A>(block);
    ATTNEXT_UNROLL for (int c = 0; c < kLanes<A>; ++c) store<A>(out + (i + c) * lanes, block[c]);
  }
}

// out[i][lane] = element begin + i of the lane's row.
template <class A>
static void load_transposed(const LaneRows<A>& rows, int vectors, int64_t begin, int64_t count,
                            A* out) {
  const int lanes = vectors * kLanes<A>;
  if (rows.is_uniform && count > 0) {
    for (int64_t i = 0; i < count; ++i) {
      const char* p = rows.row[0] + (begin + i) * rows.stride * size_of(rows.dtype);
      const Vec<A> x = splat<A>(read_element<A>(p, rows.dtype));
      for (int j = 0; j < vectors; ++j) store<A>(out + i * lanes + j * kLanes<A>, x);
    }
    return;
  }
  const bool is_direct = rows.dtype == kAccumulatorDType<A> && rows.stride == 1;
  const int64_t direct = is_direct ? count / kLanes<A> * kLanes<A> : 0;
  for (int j = 0; j < vectors; ++j) {
    const char* const* row = rows.row + j * kLanes<A>;
    load_transposed_vectors<A>(row, begin, direct, lanes, out + j * kLanes<A>);
    for (int64_t i = direct; i < count; i += kLanes<A>) {
      const int64_t columns = min_of(kLanes<A>, count - i);
      Vec<A> block[kLanes<A>];
      for (int lane = 0; lane < kLanes<A>; ++lane)
        block[lane] = load_elements<A>(row[lane], rows.dtype, rows.stride, begin + i, columns);
      transpose<A>(block);
      A* to = out + i * lanes + j * kLanes<A>;
      for (int64_t c = 0; c < columns; ++c) store<A>(to + c * lanes, block[c]);
    }
  }
}

// visit(pointer(row), row, first, columns, x): elements [first, first + columns) of each row, in
// vectors, of what lies transposed in `in` [count][lanes].
template <class A, class Pointer, class F>
ATTNEXT_HD void for_rows_of_transposed(const Panel<A>& panel, const A* in, int64_t count,
                                       Pointer&& pointer, F&& visit) {
  const int lanes = lanes_of(panel);
  for (int lane = 0; lane < lanes; lane += kLanes<A>) {
    const int64_t begin = panel.rows.begin + lane,
                  num_rows = min_of(kLanes<A>, panel.rows.end - begin);
    decltype(pointer(begin)) row[kLanes<A>];
    for (int64_t i = 0; i < num_rows; ++i) row[i] = pointer(begin + i);
    for (int64_t first = 0; first < count; first += kLanes<A>) {
      const int64_t columns = min_of(kLanes<A>, count - first);
      const A* from = in + first * lanes + lane;
      Vec<A> block[kLanes<A>];
      if (columns == kLanes<A>) {
        ATTNEXT_UNROLL for (int c = 0; c < kLanes<A>; ++c) block[c] = load<A>(from + c * lanes);
      } else {
        for (int64_t c = 0; c < kLanes<A>; ++c)
          block[c] = c < columns ? load<A>(from + c * lanes) : Vec<A>{};
      }
      transpose<A>(block);
      for (int64_t i = 0; i < num_rows; ++i) visit(row[i], begin + i, first, columns, block[i]);
    }
  }
}

// row(lane) <- factor[lane] * in[0 .. count)[lane], for the lanes that are rows; `pointer(row)` is
// where it begins.
template <class A, class F>
static void store_transposed(const Panel<A>& panel, const A* in, const A* factor, int64_t count,
                             const TensorView& t, F&& pointer) {
  for_rows_of_transposed<A>(panel, in, count, pointer,
                            [&](char* to, int64_t row, int64_t first, int64_t columns, Vec<A> x) {
                              store_elements<A>(to, dtype_of(t), t.strides[3], first, columns,
                                                x * splat<A>(factor[row - panel.rows.begin]));
                            });
}

// Whether the scale can ride on q: it then costs nothing per score. Backward keeps it apart, to
// find dscale.
enum class ScaleOn { kQueries, kScores };

template <class A>
static void normalise_lanes(int vectors, int64_t head_dim, A* x_t) {
  const int lanes = vectors * kLanes<A>;
  for (int j = 0; j < vectors; ++j) {
    Vec<A> square{};
    for (int64_t d = 0; d < head_dim; ++d) {
      const Vec<A> x = load<A>(x_t + d * lanes + j * kLanes<A>);
      square += x * x;
    }
    const Vec<A> norm = select<A>(square == Vec<A>{}, splat<A>(A(1)), square_root<A>(square));
    for (int64_t d = 0; d < head_dim; ++d) {
      A* p = x_t + d * lanes + j * kLanes<A>;
      store<A>(p, load<A>(p) / norm);
    }
  }
}

// Per-head vectors of the additive score, transposed like q; `in` is [num_heads_q, head_dim].
template <class A>
static void load_head_vectors(const Panel<A>& panel, const double* in, int64_t head_dim,
                              bool is_added, A* out) {
  const int lanes = lanes_of(panel);
  for (int lane = 0; lane < lanes; ++lane) {
    const double* row = in + panel.head[lane] * head_dim;
    for (int64_t d = 0; d < head_dim; ++d) {
      A* p = out + d * lanes + lane;
      *p = static_cast<A>(row[d]) + (is_added ? *p : A(0));
    }
  }
}

// Which rows a panel has and what their scores depend on, besides q.
template <class A>
static void describe_rows(const Group& g, Span rows, Panel<A>* panel) {
  const Problem& p = *g.problem;
  panel->rows = rows;
  panel->queries = queries_of(g, rows);
  panel->vectors = static_cast<int>(divide_up(rows.end - rows.begin, kLanes<A>));
  for (int lane = 0; lane < lanes_of(*panel); ++lane) {
    const int64_t row = min_of(rows.begin + lane, rows.end - 1);
    const int64_t head = panel->head[lane] = head_of(g, row);
    panel->query[lane] = query_of(g, row);
    panel->scale[lane] = static_cast<A>(p.scale[head] * kLog2E);
    panel->slope[lane] =
        p.alibi_slopes ? static_cast<A>(p.alibi_slopes[g.sequence * p.num_heads_q + head] * kLog2E)
                       : A(0);
  }
}

// x_t[d][lane] *= factor[lane]
template <class A>
static void scale_lanes(int vectors, int64_t count, const A* factor, A* x_t) {
  const int lanes = vectors * kLanes<A>;
  for (int64_t d = 0; d < count; ++d)
    for (int i = 0; i < lanes; i += kLanes<A>)
      store<A>(x_t + d * lanes + i, load<A>(x_t + d * lanes + i) * load<A>(factor + i));
}

// The scale of a loaded panel moves into its q.
template <class A>
static void ride_on_queries(int64_t head_dim, Panel<A>* panel) {
  scale_lanes<A>(panel->vectors, head_dim, panel->scale, panel->q_t);
  for (int lane = 0; lane < lanes_of(*panel); ++lane) panel->scale[lane] = A(1);
}

// q (and what rides on it) of a described panel.
template <class A>
static void load_queries(const Group& g, ScaleOn scale_on, A* q_t, A* weight_t, Panel<A>* panel) {
  const Problem& p = *g.problem;
  panel->q_t = q_t;
  panel->weight_t = weight_t;
  load_transposed<A>(
      lane_rows(*panel, p.q, 3, [&](int64_t row) { return row_pointer(g, p.q, row); }),
      panel->vectors, 0, p.head_dim, q_t);
  if (p.score == Score::kCosine) normalise_lanes<A>(panel->vectors, p.head_dim, q_t);
  if (p.score_bias) load_head_vectors<A>(*panel, p.score_bias, p.head_dim, true, q_t);
  if (p.weight) load_head_vectors<A>(*panel, p.weight, p.head_dim, false, weight_t);
  if (scale_on == ScaleOn::kQueries) ride_on_queries<A>(p.head_dim, panel);
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
