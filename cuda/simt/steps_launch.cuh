// Steps that no kind of score changes: how they are launched.
#pragma once

#include "simt/backward_sums.cuh"
#include "simt/combine.cuh"
#include "simt/dispatch.h"
#include "simt/norms.cuh"
#include "simt/passes.h"

namespace attnext::cuda::simt {

template <class A>
Status Steps<A>::find_norms(const Problem& p, const Norms<A>& norms, Launch& launch) {
  if (p.score != Score::kCosine) return launch.status();
  const int64_t rows = p.batch * p.num_heads_kv * (p.seqlen_q * p.group_size + p.seqlen_k);
  return start<NormArguments<A>>(launch, "norm_kernel", norm_kernel<A>, divide_up(rows, kWarps), 0,
                                 {p, const_cast<A*>(norms.q), const_cast<A*>(norms.k)});
}

template <class A>
Status Steps<A>::join_splits(const ForwardArguments<A>& a, Launch& launch) {
  const Problem& p = a.params.problem;
  return start(launch, "combine_kernel", combine_kernel<A>,
               divide_up(p.batch * p.num_heads_q * p.seqlen_q, kWarps), 0, a);
}

template <class A>
void Steps<A>::prepare_rows(const BackwardArguments<A>& a, Launch& launch) {
  const Problem& p = a.params.problem;
  start(launch, "backward_prepare_kernel", backward_prepare_kernel<A>,
        divide_up(p.batch * p.num_heads_q * p.seqlen_q, kWarps), 0, a);
}

template <class A>
void Steps<A>::finish_cosine(const BackwardArguments<A>& a, Launch& launch) {
  const Problem& p = a.params.problem;
  if (p.score != Score::kCosine) return;
  start(launch, "backward_cosine_kernel", backward_cosine_kernel<A>,
        divide_up(p.batch * p.num_heads_kv * (p.seqlen_q * p.group_size + p.seqlen_k), kWarps), 0,
        a);
}

template <class A>
void Steps<A>::add_up(const BackwardArguments<A>& a, Launch& launch) {
  const BackwardParams& params = a.params;
  const Problem& p = params.problem;
  if (params.dscale || params.dalibi_slopes || params.dsinks)
    start(launch, "backward_heads_kernel", backward_heads_kernel<A>, p.batch * p.num_heads_q,
          kBlockSumBytes, a);
  if (params.dweight || params.dscore_bias)
    start(launch, "backward_columns_kernel", backward_columns_kernel<A>,
          divide_up(p.batch * p.num_heads_q * p.head_dim, kThreads), 0, a);
  const BiasSum bias = bias_sum_of(params);
  const int64_t* shape = params.dbias.shape;
  if (bias == BiasSum::kPerRow || bias == BiasSum::kPerKey)
    start(launch, "backward_small_bias_kernel", backward_small_bias_kernel<A>,
          shape[0] * shape[1] * shape[2] * shape[3], kBlockSumBytes, a);
}

}  // namespace attnext::cuda::simt
