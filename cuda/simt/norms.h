// Memory of the norms that the cosine score divides by.
#pragma once

#include "simt/block.cuh"
#include "simt/dispatch.h"

namespace attnext::cuda::simt {

// Null for other scores.
template <class A>
Norms<A> take_norms(const Problem& p, Launch& launch) {
  if (p.score != Score::kCosine) return {nullptr, nullptr};
  return {launch.take<A>(workspace_rows(p)), launch.take<A>(workspace_keys(p))};
}

}  // namespace attnext::cuda::simt
