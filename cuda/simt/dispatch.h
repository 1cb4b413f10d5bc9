// Host side of a launch: which instance of a kernel a problem needs, and how large its grid is.
#pragma once

#include "attention/score.h"
#include "kernels.h"
#include "ptx/launch.h"
#include "simt/tile.cuh"

namespace attnext::cuda::simt {

// The two types everything is accumulated in, and the three kinds of term: all that is compiled
// apart.
template <class F>
auto with_accumulator(const Problem& p, F&& run) {
  if (kDTypes[p.q.dtype].accumulator == DType::kFloat64) return run(double{});
  return run(float{});
}

template <class F>
auto with_instance(const Problem& p, F&& run) {
  return with_accumulator(p, [&](auto zero) {
    if (p.score == Score::kAdditive) return run(zero, AdditiveTerm{});
    if (p.score == Score::kNegL2 || p.score == Score::kNegSqL2) return run(zero, SquareTerm{});
    return run(zero, DotTerm{});
  });
}

// At least `num_blocks` blocks. None: nothing to do.
template <class Arguments>
Status start(Launch& launch, const char* name, void (*kernel)(Arguments), int64_t num_blocks,
             uint32_t shared_bytes, const Arguments& arguments) {
  if (num_blocks == 0) return launch.status();
  const dim3 grid(static_cast<unsigned>(min_of(num_blocks, kGridColumns)),
                  static_cast<unsigned>(divide_up(num_blocks, kGridColumns)));
  launch.check(ptx::launch(kernel, grid, dim3(kThreads), shared_bytes, launch.stream, arguments),
               name);
  return launch.status();
}

// Rows of lse and keys of k in workspace: room for all of them.
inline int64_t workspace_rows(const Problem& p) {
  return (p.is_packed ? p.q.shape[2] : p.batch * p.seqlen_q) * p.num_heads_q;
}
inline int64_t workspace_keys(const Problem& p) {
  return (p.is_packed ? p.k.shape[2] : p.batch * p.seqlen_k) * p.num_heads_kv;
}

}  // namespace attnext::cuda::simt
