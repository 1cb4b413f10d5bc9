// Weights and statistics on FFMA units: how they are launched.
#pragma once

#include "simt/inspect.cuh"
#include "simt/norms.h"
#include "simt/passes.h"

namespace attnext::cuda::simt {

template <class A, class Term>
Status run_weights(const WeightsParams& params, Launch& launch) {
  constexpr uint32_t kBytes = forward_bytes<A, Term, kManyRows>();
  static_assert(kBytes <= kMaxSharedBytes);
  const Problem& p = params.problem;
  const WeightsArguments<A> a{params, take_norms<A>(p, launch),
                              divide_up(params.num_rows * p.group_size, kTileRows<kManyRows>)};
  if (!launch.status().is_ok() || !Steps<A>::find_norms(p, a.norms, launch).is_ok())
    return launch.status();
  return start(launch, "weights_kernel", weights_kernel<A, Term>,
               p.batch * p.num_heads_kv * a.tiles, kBytes, a);
}

template <class A, class Term>
Status run_stats(const StatsParams& params, Launch& launch) {
  constexpr uint32_t kBytes = forward_bytes<A, Term, kManyRows>();
  static_assert(kBytes <= kMaxSharedBytes);
  const Problem& p = params.problem;
  const bool has_mass = is_present(params.key_mass);
  StatsArguments<A> a{params,
                      take_norms<A>(p, launch),
                      {nullptr, nullptr},
                      divide_up(p.seqlen_q * p.group_size, kTileRows<kManyRows>),
                      divide_up(p.seqlen_k, kTileK)};
  const int64_t rows = has_mass ? workspace_rows(p) : 0;
  a.weights = {launch.take<A>(rows), launch.take<A>(rows)};
  if (!launch.status().is_ok() || !Steps<A>::find_norms(p, a.norms, launch).is_ok())
    return launch.status();
  start(launch, "row_stats_kernel", row_stats_kernel<A, Term>,
        p.batch * p.num_heads_kv * a.query_tiles, kBytes, a);
  return start(launch, "key_mass_kernel", key_mass_kernel<A, Term>,
               has_mass ? p.batch * p.num_heads_q * a.key_tiles : 0, kBytes, a);
}

}  // namespace attnext::cuda::simt
