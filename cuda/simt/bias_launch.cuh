// The gradient of a bias that differs by key: how it is launched, for the matrix units' path too.
#pragma once

#include "simt/backward_bias.cuh"
#include "simt/dispatch.h"
#include "simt/passes.h"

namespace attnext::cuda::simt {

template <class A, class Term>
void start_bias(BackwardArguments<A> a, Launch& launch) {
  const BiasSum bias = bias_sum_of(a.params);
  if (bias != BiasSum::kDense && bias != BiasSum::kPerKey) return;
  constexpr uint32_t kBytes = backward_bytes<A, Term>();
  static_assert(kBytes <= kMaxSharedBytes);
  const Problem& p = a.params.problem;
  const int64_t* shape = a.params.dbias.shape;
  // A tile of one head holds 64 queries, one of a group fewer.
  a.query_tiles = divide_up(p.seqlen_q, kTileRows<kManyRows>);
  a.key_tiles = divide_up(p.seqlen_k, kTileK);
  const int64_t shared_by =
      bias == BiasSum::kDense ? shape[0] * shape[1] * a.query_tiles : p.batch * p.num_heads_q;
  start(launch, "backward_bias_kernel", backward_bias_kernel<A, Term>, shared_by * a.key_tiles,
        kBytes, a);
}

}  // namespace attnext::cuda::simt
