// Backward on FFMA units: what it needs and how it is launched.
#pragma once

#include "simt/backward_keys.cuh"
#include "simt/backward_queries.cuh"
#include "simt/norms.h"
#include "simt/passes.h"
#include "simt/unread.h"

namespace attnext::cuda::simt {

template <class A>
BackwardSpace<A> take_space(const BackwardParams& params, int64_t query_tiles, Launch& launch) {
  const Problem& p = params.problem;
  const int64_t rows = workspace_rows(p), keys = workspace_keys(p);
  const int64_t columns = p.batch * p.num_heads_q * query_tiles * p.head_dim;
  const bool is_cosine = p.score == Score::kCosine;
  const auto doubles = [&](bool is_wanted, int64_t count) {
    return launch.take<double>(is_wanted ? count : 0);
  };
  BackwardSpace<A> space{};
  space.lse_log2 = launch.take<A>(rows);
  space.lse_rest = launch.take<A>(rows);
  space.delta = launch.take<A>(rows);
  space.row_sums = doubles(has_row_sums(params), rows * kNumRowSums);
  space.dq = launch.take<A>(is_cosine && is_present(params.dq) ? rows * p.head_dim : 0);
  space.dk = launch.take<A>(is_cosine && is_present(params.dk) ? keys * p.head_dim : 0);
  space.weight = doubles(params.dweight != nullptr, columns);
  space.score_bias = doubles(params.dscore_bias != nullptr, columns);
  space.bias_keys =
      doubles(bias_sum_of(params) == BiasSum::kPerKey, p.batch * p.num_heads_q * p.seqlen_k);
  return space;
}

// The kernels that multiply; `a` by value, as each shares out its columns differently.
template <class A, class Term>
void start_products(BackwardArguments<A> a, Launch& launch) {
  constexpr uint32_t kBytes = backward_bytes<A, Term>();
  static_assert(kBytes <= kMaxSharedBytes);
  const Problem& p = a.params.problem;
  const int64_t groups = p.batch * p.num_heads_kv;
  a.slices = num_slices(p.head_dim, kQuads<A, Term>);
  start(launch, "backward_queries_kernel", backward_queries_kernel<A, Term>,
        is_present(a.params.dq) ? groups * a.slices * a.query_tiles : 0, kBytes, a);
  a.slices = max_of(a.slices, num_slices(p.head_dim_v, kQuads<A, Term>));
  start(launch, "backward_keys_kernel", backward_keys_kernel<A, Term>,
        is_present(a.params.dk) ? groups * a.slices * a.key_tiles : 0, kBytes, a);
}

template <class A, class Term>
Status run_backward(const BackwardParams& wanted, Launch& launch) {
  BackwardParams params = wanted;
  take_unread(params, true, launch);
  const Problem& p = params.problem;
  const int64_t rows = p.seqlen_q * p.group_size;
  const int64_t query_tiles = divide_up(rows, kTileRows<kManyRows>);
  BackwardArguments<A> a{
      params,      take_norms<A>(p, launch),      take_space<A>(params, query_tiles, launch),
      query_tiles, divide_up(p.seqlen_k, kTileK), 0};
  if (!launch.status().is_ok() || !Steps<A>::find_norms(p, a.norms, launch).is_ok())
    return launch.status();
  Steps<A>::prepare_rows(a, launch);
  start_products<A, Term>(a, launch);
  start_bias<A, Term>(a, launch);
  Steps<A>::finish_cosine(a, launch);
  Steps<A>::add_up(a, launch);
  return launch.status();
}

}  // namespace attnext::cuda::simt
