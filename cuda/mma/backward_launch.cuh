// How instances of the backward kernels are started: each is compiled in a file of its own.
#pragma once

#include "mma/backward_keys.cuh"
#include "mma/backward_queries.cuh"
#include "ptx/launch.h"

namespace attnext::cuda::mma {

template <class Element, int kHeadDim, Budget kBudget, Features kFeatures>
cudaError_t launch_backward_queries(const BackwardArguments& a, dim3 grid, cudaStream_t stream) {
  using Instance = BackwardShape<kHeadDim, sizeof(typename Element::Stored), kBudget, kFeatures,
                                 Owner::kQueries>;
  return ptx::launch(backward_queries_kernel<Element, Instance>, grid, dim3(Instance::kThreads),
                     BackwardMemory<Instance>::kBytes, stream, a);
}

template <class Element, int kHeadDim, Budget kBudget, Features kFeatures, KeyGradients kWanted>
cudaError_t launch_backward_keys(const BackwardArguments& a, dim3 grid, cudaStream_t stream) {
  using Instance =
      BackwardShape<kHeadDim, sizeof(typename Element::Stored), kBudget, kFeatures, Owner::kKeys>;
  return ptx::launch(backward_keys_kernel<Element, Instance, kWanted>, grid,
                     dim3(Instance::kThreads), BackwardMemory<Instance>::kBytes, stream, a);
}

}  // namespace attnext::cuda::mma
