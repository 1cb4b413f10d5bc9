// Sums of backward that need every block: over the rows of a head, and over all that share a bias.
// In index order, whatever ran first.
#pragma once

#include "simt/backward_rows.cuh"

namespace attnext::cuda::simt {

// A row's sums over its keys, and what follows from them.
struct FinishedSums {
  const double* sums;
  double dlse;
  RowBalance balance;
  bool exists;  // has keys, or a sink
};

template <class A>
PTX_FN FinishedSums finish_row_sums(const BackwardArguments<A>& a, const Group& g, int64_t row) {
  const BackwardParams& params = a.params;
  const Problem& p = params.problem;
  FinishedSums r{};
  const double lse = row_lse<A>(params, g, row);
  r.exists = lse != negative_infinity<double>();
  if (!r.exists) return r;
  const int64_t at = row_base(p, g) + row;
  r.sums = a.space.row_sums + at * kNumRowSums;
  r.dlse = row_dlse<A>(params, g, row);
  const double sink_share = p.sinks ? exp(p.sinks[head_of(g, row)] - lse) : 0;
  r.balance = balance_row(r.sums[kMass], r.sums[kDs], static_cast<double>(a.space.delta[at]),
                          r.dlse, sink_share);
  return r;
}

// dscale, dalibi_slopes and dsinks of one (sequence, head): a block each.
template <class A>
PTX_FN void sum_head(const BackwardArguments<A>& a, int64_t sequence, int64_t head) {
  const BackwardParams& params = a.params;
  const Problem& p = params.problem;
  const Group g = group_of(p, sequence, head / p.group_size);
  double scale = 0, slope = 0, sink = 0;
  for (int64_t query = thread_place().index; query < g.mask.seqlen_q; query += kThreads) {
    const FinishedSums r = finish_row_sums(a, g, query * p.group_size + head % p.group_size);
    if (!r.exists) continue;
    scale += balanced_sum(r.balance, r.sums[kScaleDs], r.sums[kScaleMass]);
    slope += balanced_sum(r.balance, r.sums[kSlopeDs], r.sums[kSlopeMass]);
    sink += sink_gradient(r.balance);
  }
  const double whole[3] = {block_sum(scale), block_sum(slope), block_sum(sink)};
  if (thread_place().index != 0) return;
  const int64_t out = sequence * p.num_heads_q + head;
  if (params.dscale) params.dscale[out] = whole[0];
  if (params.dalibi_slopes) params.dalibi_slopes[out] = whole[1];
  if (params.dsinks) params.dsinks[out] = whole[2];
}

template <class A>
__global__ void __launch_bounds__(kThreads, 1)
    backward_heads_kernel(const __grid_constant__ BackwardArguments<A> a) {
  const Problem& p = a.params.problem;
  for_blocks(p.batch * p.num_heads_q,
             [&](int64_t item) { sum_head(a, item / p.num_heads_q, item % p.num_heads_q); });
}

// dweight or dscore_bias [batch, num_heads_q, head_dim], from the parts of query tiles.
template <class A>
PTX_FN void sum_column(const BackwardArguments<A>& a, int64_t index, const double* parts,
                       double* out) {
  const Problem& p = a.params.problem;
  const int64_t d = index % p.head_dim, head = index / p.head_dim % p.num_heads_q,
                sequence = index / p.head_dim / p.num_heads_q;
  const Group g = group_of(p, sequence, head / p.group_size);
  const int64_t first = (sequence * p.num_heads_kv + g.head_kv) * a.query_tiles;
  double sum = 0;
  for (int64_t tile = 0; tile < divide_up(g.num_rows, kTileRows<kManyRows>); ++tile)
    sum += parts[((first + tile) * p.group_size + head % p.group_size) * p.head_dim + d];
  out[index] = sum;
}

template <class A>
__global__ void __launch_bounds__(kThreads, 1)
    backward_columns_kernel(const __grid_constant__ BackwardArguments<A> a) {
  const Problem& p = a.params.problem;
  for_threads(p.batch * p.num_heads_q * p.head_dim, [&](int64_t i) {
    if (a.space.weight) sum_column(a, i, a.space.weight, a.params.dweight);
    if (a.space.score_bias) sum_column(a, i, a.space.score_bias, a.params.dscore_bias);
  });
}

// What the pairs (sequence, head, query) that share an element add up to: by a block, thread by
// thread in index order. `add(sequence, head, query)` is 0 where there is no such row.
template <class F>
PTX_FN double sum_sharing(const Problem& p, const TensorView& dbias, const int64_t (&index)[3],
                          int64_t num_queries, F&& add) {
  const int64_t sequences = dbias.shape[0] == 1 ? p.batch : 1,
                heads = dbias.shape[1] == 1 ? p.num_heads_q : 1,
                queries = dbias.shape[2] == 1 ? num_queries : 1;
  double sum = 0;
  for (int64_t i = thread_place().index; i < sequences * heads * queries; i += kThreads)
    sum +=
        add(index[0] + i / queries / heads, index[1] + i / queries % heads, index[2] + i % queries);
  return block_sum(sum);
}

// One element of a bias gradient that is shared by the keys of a row, or by all queries.
template <class A>
PTX_FN void small_bias_item(const BackwardArguments<A>& a, int64_t item) {
  const BackwardParams& params = a.params;
  const Problem& p = params.problem;
  const TensorView& t = params.dbias;
  const int64_t key = item % t.shape[3], query = item / t.shape[3] % t.shape[2],
                head = item / t.shape[3] / t.shape[2] % t.shape[1],
                sequence = item / t.shape[3] / t.shape[2] / t.shape[1];
  const auto per_row = [&](int64_t b, int64_t h, int64_t q) {
    const Group g = group_of(p, b, h / p.group_size);
    if (q >= g.mask.seqlen_q) return 0.0;
    const FinishedSums r = finish_row_sums(a, g, q * p.group_size + h % p.group_size);
    return r.exists ? bias_row_gradient(r.balance, r.dlse) : 0.0;
  };
  const auto per_key = [&](int64_t b, int64_t h, int64_t) {
    if (key >= p.sequences[b].mask.seqlen_k) return 0.0;
    return a.space.bias_keys[(b * p.num_heads_q + h) * p.seqlen_k + key];
  };
  const int64_t index[3] = {sequence, head, query};
  const double sum = bias_sum_of(params) == BiasSum::kPerRow
                         ? sum_sharing(p, t, index, p.seqlen_q, per_row)
                         : sum_sharing(p, t, index, 1, per_key);
  if (thread_place().index == 0)
    write_element<double>(element_pointer(t, sequence * t.strides[0] + head * t.strides[1] +
                                                 query * t.strides[2] + key * t.strides[3]),
                          dtype_of(t), sum);
}

template <class A>
__global__ void __launch_bounds__(kThreads, 1)
    backward_small_bias_kernel(const __grid_constant__ BackwardArguments<A> a) {
  const TensorView& t = a.params.dbias;
  for_blocks(t.shape[0] * t.shape[1] * t.shape[2] * t.shape[3],
             [&](int64_t item) { small_bias_item(a, item); });
}

}  // namespace attnext::cuda::simt
