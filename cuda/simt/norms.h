// Host side of the norms that the cosine score divides by.
#pragma once

#include "simt/dispatch.h"
#include "simt/norms.cuh"

namespace attnext::cuda::simt {

// Their memory: null for other scores.
template <class A>
Norms<A> take_norms(const Problem& p, Launch& launch) {
  if (p.score != Score::kCosine) return {nullptr, nullptr};
  return {launch.take<A>(workspace_rows(p)), launch.take<A>(workspace_keys(p))};
}

template <class A>
Status find_norms(const Problem& p, const Norms<A>& norms, Launch& launch) {
  if (p.score != Score::kCosine) return launch.status();
  const int64_t rows = p.batch * p.num_heads_kv * (p.seqlen_q * p.group_size + p.seqlen_k);
  return start<NormArguments<A>>(launch, "norm_kernel", norm_kernel<A>, divide_up(rows, kWarps), 0,
                                 {p, const_cast<A*>(norms.q), const_cast<A*>(norms.k)});
}

}  // namespace attnext::cuda::simt
