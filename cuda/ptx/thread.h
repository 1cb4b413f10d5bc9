// Which thread is this, and how does it meet the others?
#pragma once

#include "ptx/declarations.h"

namespace attnext {

constexpr uint32_t kAllLanes = 0xFFFFFFFFu;

PTX_FN uint3 ptx::thread_index() { return threadIdx; }
PTX_FN uint3 ptx::block_index() { return blockIdx; }
PTX_FN dim3 ptx::block_size() { return blockDim; }
PTX_FN dim3 ptx::grid_size() { return gridDim; }
PTX_FN uint32_t ptx::lane_index() { return threadIdx.x % 32; }
// Through a shuffle, from which the compiler learns that all lanes agree.
PTX_FN uint32_t ptx::warp_index() { return __shfl_sync(kAllLanes, threadIdx.x / 32, 0); }

PTX_FN void ptx::block_sync() { __syncthreads(); }
PTX_FN bool ptx::block_any(bool value) { return __syncthreads_or(value) != 0; }
PTX_FN void ptx::barrier_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
PTX_FN void ptx::barrier_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
PTX_FN void ptx::warp_sync() { __syncwarp(); }

template <class T>
PTX_FN T ptx::shuffle(T value, uint32_t source_lane) {
  return __shfl_sync(kAllLanes, value, static_cast<int>(source_lane));
}
template <class T>
PTX_FN T ptx::shuffle_xor(T value, uint32_t lane_mask) {
  return __shfl_xor_sync(kAllLanes, value, static_cast<int>(lane_mask));
}
template <class T>
PTX_FN T ptx::shuffle_down(T value, uint32_t delta) {
  return __shfl_down_sync(kAllLanes, value, delta);
}
template <class T>
PTX_FN T ptx::shuffle_up(T value, uint32_t delta) {
  return __shfl_up_sync(kAllLanes, value, delta);
}
PTX_FN uint32_t ptx::ballot(bool value) { return __ballot_sync(kAllLanes, value); }
PTX_FN bool ptx::warp_any(bool value) { return __any_sync(kAllLanes, value) != 0; }
PTX_FN bool ptx::warp_all(bool value) { return __all_sync(kAllLanes, value) != 0; }

}  // namespace attnext
