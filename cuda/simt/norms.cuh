// |x| of every row of q and k, for the cosine score: a warp a row.
#pragma once

#include "simt/block.cuh"
#include "simt/warp.cuh"

namespace attnext::cuda::simt {

template <class A>
struct NormArguments {
  Problem problem;
  A *q, *k;
};

template <class A>
PTX_FN void store_norm(const char* row, const TensorView& t, int64_t count, A* out) {
  const int lane = static_cast<int>(ptx::lane_index());
  A sum = A(0);
  for (int64_t d = lane; d < count; d += 32) {
    const A x = read_at<A>(row, t, d);
    sum += x * x;
  }
  const A norm = ThreadMath<A>::sqrt(warp_sum(sum));
  if (lane == 0) *out = norm == A(0) ? A(1) : norm;
}

template <class A>
__global__ void __launch_bounds__(kThreads, 1)
    norm_kernel(const __grid_constant__ NormArguments<A> a) {
  const Problem& p = a.problem;
  const int64_t rows = p.seqlen_q * p.group_size, each = rows + p.seqlen_k;
  for_warps(p.batch * p.num_heads_kv * each, [&](int64_t i) {
    const Place at = place_of(p, i, each);
    const Group g = group_of(p, at.sequence, at.head_kv);
    const int64_t key = at.index - rows;
    if (at.index < g.num_rows)
      store_norm(row_pointer(p, g, p.q, at.index), p.q, p.head_dim,
                 a.q + row_base(p, g) + at.index);
    if (key >= 0 && key < g.mask.seqlen_k)
      store_norm(key_pointer(p, g, p.k, key), p.k, p.head_dim, a.k + key_base(p, g) + key);
  });
}

}  // namespace attnext::cuda::simt
