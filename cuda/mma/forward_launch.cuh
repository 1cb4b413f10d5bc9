// How an instance of the forward kernel is started: each is compiled in a file of its own.
#pragma once

#include "mma/forward_kernel.cuh"
#include "ptx/launch.h"

namespace attnext::cuda::mma {

template <class Element, int kHeadDim, Budget kBudget, Features kFeatures>
cudaError_t launch_forward(const ForwardArguments& a, dim3 grid, cudaStream_t stream) {
  using Instance = ForwardShape<kHeadDim, sizeof(typename Element::Stored), kBudget, kFeatures>;
  return ptx::launch(forward_kernel<Element, Instance>, grid, dim3(Instance::kThreads),
                     ForwardMemory<Instance>::kBytes, stream, a);
}

}  // namespace attnext::cuda::mma
