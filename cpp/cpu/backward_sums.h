// What surrounds the five products of backward: delta before them; afterwards the sums that became
// whole only when every item was done, added up in index order.
#pragma once

#include "cpu/backward_block.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

// dq is added to where it lies if it is of the accumulator type and nothing remains to be done to a
// row at the end.
template <class A>
static bool adds_to_dq(const BackwardParams& params) {
  const TensorView& dq = params.dq;
  return dtype_of(dq) == kAccumulatorDType<A> && (dq.strides[3] == 1 || dq.shape[3] == 1) &&
         params.problem.score != Score::kCosine;
}

static double row_dlse(const BackwardParams& params, const Group& g, int64_t row) {
  return is_present(params.dlse)
             ? read_element<double>(row_pointer(g, params.dlse, row), dtype_of(params.dlse))
             : 0;
}

template <class A>
static double row_delta(const BackwardParams& params, const Group& g, int64_t row) {
  const char *out = row_pointer(g, params.out, row), *dout = row_pointer(g, params.dout, row);
  const int64_t count = params.problem.head_dim_v;
  Vec<A> sum{};
  for (int64_t d = 0; d < count; d += kLanes<A>) {
    const int64_t columns = min_of(kLanes<A>, count - d);
    sum += load_elements<A>(out, dtype_of(params.out), params.out.strides[3], d, columns) *
           load_elements<A>(dout, dtype_of(params.dout), params.dout.strides[3], d, columns);
  }
  return static_cast<double>(horizontal_sum<A>(sum)) - row_dlse(params, g, row);
}

// Rows that no item goes over have no gradient.
template <class A>
static void clear_dq(const BackwardParams& params, const BackwardSums<A>& sums, const Group& g,
                     Span rows) {
  const int64_t head_dim = params.problem.head_dim, width = padded<A>(head_dim);
  if (sums.dq && rows.begin < rows.end)
    std::memset(sums.dq + (row_base(sums, g) + rows.begin) * width, 0,
                sizeof(A) * (rows.end - rows.begin) * width);
  for (int64_t row = rows.begin; is_present(params.dq) && row < rows.end; ++row)
    clear_row(row_pointer(g, params.dq, row), params.dq, head_dim);
}

template <class A>
static void clear_unvisited_dq(const BackwardParams& params, const BackwardSums<A>& sums,
                               const Group& g) {
  int64_t next = 0;
  for (int64_t i = 0; i < num_chunks(params, g.mask.seqlen_k); ++i) {
    const Span blocks = blocks_seeing<A>(params, g, i);
    clear_dq(params, sums, g, {next, blocks.begin * kTileQ<A>});
    next = max_of(next, min_of(blocks.end * kTileQ<A>, g.num_rows));
  }
  clear_dq(params, sums, g, {next, g.num_rows});
}

// Row constants of one group, and zeros where sums will be added or nothing will be.
template <class A>
static void prepare_group(const BackwardParams& params, const BackwardSums<A>& sums,
                          const Group& g) {
  const Problem& p = params.problem;
  const int64_t base = row_base(sums, g);
  for (int64_t row = 0; row < g.num_rows; ++row) {
    const double delta = sums.wanted.dp ? row_delta<A>(params, g, row) : 0;
    const double lse = read_element<double>(row_pointer(g, params.lse, row), dtype_of(params.lse));
    sums.delta[base + row] = static_cast<A>(delta);
    const double lse_log2 = row_lse_log2(lse);
    const A rounded = static_cast<A>(lse_log2);
    sums.lse_log2[base + row] = rounded;
    sums.lse_rest[base + row] =
        __builtin_isinf(lse_log2) ? A(0) : static_cast<A>(lse_log2 - static_cast<double>(rounded));
    if (sums.rows)
      std::memset(sums.rows + (base + row) * kNumRowSums, 0, sizeof(double) * kNumRowSums);
  }
  clear_unvisited_dq(params, sums, g);
  const int64_t last = p.is_packed ? g.num_rows : p.seqlen_q * p.group_size;
  for (int64_t row = g.num_rows; is_present(params.dq) && row < last; ++row)
    clear_row(row_pointer(g, params.dq, row), params.dq, p.head_dim);
}

// Accumulated rows -> dq: conversion, and for cosine the step from the normalised row to the row.
template <class A>
static void finish_dq(const BackwardParams& params, const BackwardSums<A>& sums, const Group& g,
                      Span rows, A* row_scratch) {
  const Problem& p = params.problem;
  const int64_t width = padded<A>(p.head_dim);
  for (int64_t row = rows.begin; row < rows.end; ++row) {
    A* dq = sums.dq + (row_base(sums, g) + row) * width;
    if (p.score == Score::kCosine) {
      load_row<A>(row_pointer(g, p.q, row), dtype_of(p.q), p.q.strides[3], p.head_dim, row_scratch);
      unnormalise_gradient<A>(row_scratch, width, dq);
    }
    store_row<A>(row_pointer(g, params.dq, row), dtype_of(params.dq), params.dq.strides[3],
                 p.head_dim, dq);
  }
}

// dscore_bias joins q before the tanh: its gradient is the sum of dq over the rows of a head.
template <class A>
static void sum_score_bias(const BackwardParams& params, const BackwardSums<A>& sums,
                           const Group& g) {
  const Problem& p = params.problem;
  for (int64_t row = 0; row < g.num_rows; ++row) {
    double* out = params.dscore_bias + (g.sequence * p.num_heads_q + head_of(g, row)) * p.head_dim;
    const char* dq = sums.dq ? reinterpret_cast<const char*>(sums.dq + (row_base(sums, g) + row) *
                                                                           padded<A>(p.head_dim))
                             : row_pointer(g, params.dq, row);
    for (int64_t d = 0; d < p.head_dim; ++d)
      out[d] += static_cast<double>(reinterpret_cast<const A*>(dq)[d]);
  }
}

// What follows from the sums over each row's keys: dscale, dalibi_slopes, dsinks, and a bias shared
// by a row's keys, whose `bias_totals` is a broadcast view of float64 (or absent).
template <class A>
static void finish_rows_of_group(const BackwardParams& params, const BackwardSums<A>& sums,
                                 const Group& g, const TensorView& bias_totals) {
  const Problem& p = params.problem;
  for (int64_t row = 0; row < g.num_rows; ++row) {
    const int64_t at = row_base(sums, g) + row, head = head_of(g, row),
                  out = g.sequence * p.num_heads_q + head;
    const double lse = read_element<double>(row_pointer(g, params.lse, row), dtype_of(params.lse));
    if (lse == -__builtin_inf()) continue;
    const double* sum = sums.rows + at * kNumRowSums;
    const double dlse = row_dlse(params, g, row),
                 sink_share = p.sinks ? exp(p.sinks[head] - lse) : 0;
    const RowBalance balance =
        balance_row(sum[kMass], sum[kDs], static_cast<double>(sums.delta[at]), dlse, sink_share);
    if (params.dscale) params.dscale[out] += balanced_sum(balance, sum[kScaleDs], sum[kScaleMass]);
    if (params.dalibi_slopes)
      params.dalibi_slopes[out] += balanced_sum(balance, sum[kSlopeDs], sum[kSlopeMass]);
    if (params.dsinks) params.dsinks[out] += sink_gradient(balance);
    if (sums.bias_sum == BiasSum::kPerRow)
      *reinterpret_cast<double*>(dense_pointer(g, bias_totals, row)) +=
          bias_row_gradient(balance, dlse);
  }
}

template <class A>
static void sum_weights(const BackwardParams& params, const BackwardSums<A>& sums,
                        const Schedule& items, const Group& g) {
  const Problem& p = params.problem;
  const int64_t width = padded<A>(p.head_dim);
  const int64_t end = items.first[g.sequence + 1];
  for (int64_t item = item_at(items, {g.sequence, g.head_kv, 0}); item < end;
       item += items.num_heads)
    for (int64_t head = 0; head < p.group_size; ++head) {
      const double* part = sums.weight + (item * p.group_size + head) * width;
      double* out = params.dweight +
                    (g.sequence * p.num_heads_q + g.head_kv * p.group_size + head) * p.head_dim;
      for (int64_t d = 0; d < p.head_dim; ++d) out[d] += part[d];
    }
}

// A bias shared by all queries: its sums per key, added in the order of sequence and head.
template <class A>
static void sum_bias_keys(const BackwardSums<A>& sums, const Group& g, const TensorView& totals) {
  const Problem& p = *g.problem;
  double* out = static_cast<double*>(totals.data) + g.sequence * totals.strides[0];
  const int64_t num_keys = g.mask.seqlen_k;
  for (int64_t head = 0; head < p.group_size; ++head) {
    const int64_t head_q = g.head_kv * p.group_size + head;
    const A* part =
        sums.bias_keys + sums.keys_before[g.sequence] * p.num_heads_q + head_q * num_keys;
    for (int64_t key = 0; key < num_keys; ++key)
      out[head_q * totals.strides[1] + key * totals.strides[3]] += static_cast<double>(part[key]);
  }
}

// Contiguous accumulators in the shape of `t`, as a broadcast view.
static TensorView accumulators_like(const TensorView& t, DType dtype, void* data) {
  TensorView view = t;
  view.data = data;
  view.dtype = static_cast<int32_t>(dtype);
  int64_t stride = 1;
  for (int axis = 3; axis >= 0; --axis) {
    view.strides[axis] = stride;
    stride *= t.shape[axis];
  }
  return broadcast_view(view);
}

ATTNEXT_HD int64_t num_elements(const TensorView& t) {
  return t.shape[0] * t.shape[1] * t.shape[2] * t.shape[3];
}

// out <- in, element by element, of one shape.
template <class From>
static void copy_tensor(const From* in, const TensorView& out) {
  const int64_t* shape = out.shape;
  for (int64_t i = 0, at = 0; i < shape[0]; ++i)
    for (int64_t j = 0; j < shape[1]; ++j)
      for (int64_t k = 0; k < shape[2]; ++k)
        for (int64_t l = 0; l < shape[3]; ++l, ++at) {
          const int64_t index =
              i * out.strides[0] + j * out.strides[1] + k * out.strides[2] + l * out.strides[3];
          write_element<From>(static_cast<char*>(out.data) + index * size_of(dtype_of(out)),
                              dtype_of(out), in[at]);
        }
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
