// Kernels that take a warp, or a block, for each of many small sums. Every sum has one order.
#pragma once

#include "simt/tile.cuh"

namespace attnext::cuda::simt {

constexpr int kWarps = kThreads / 32;

// Shared memory of a kernel that calls block_sum.
constexpr uint32_t kBlockSumBytes = kWarps * sizeof(double);

template <class A>
PTX_FN A warp_sum(A x) {
#pragma unroll
  for (uint32_t lanes = 16; lanes > 0; lanes /= 2) x += ptx::shuffle_xor(x, lanes);
  return x;
}

// Over the block, for thread 0. All threads take part.
PTX_FN double block_sum(double x) {
  const SharedArray<double> parts = {ptx::dyn_smem()};
  const double mine = warp_sum(x);
  const auto warp = static_cast<int>(ptx::warp_index());  // of all lanes: it is a shuffle
  if (ptx::lane_index() == 0) store(parts, warp, mine);
  ptx::block_sync();
  double sum = 0;
  for (int i = 0; i < kWarps; ++i) sum += load(parts, i);
  ptx::block_sync();
  return sum;
}

// Calls work(i) for i in [0, count), a warp each.
template <class F>
PTX_FN void for_warps(int64_t count, F&& work) {
  const int64_t i = block_number() * kWarps + ptx::warp_index();
  if (i < count) work(i);
}

// Calls work(i) for i in [0, count), a thread each.
template <class F>
PTX_FN void for_threads(int64_t count, F&& work) {
  const int64_t i = block_number() * kThreads + thread_place().index;
  if (i < count) work(i);
}

template <class A>
PTX_FN A read_at(const char* row, const TensorView& t, int64_t d) {
  const int64_t stride = t.ndim == 0 ? 1 : t.strides[t.ndim - 1];
  return read_element<A>(row + d * stride * size_of(dtype_of(t)), dtype_of(t));
}

}  // namespace attnext::cuda::simt
