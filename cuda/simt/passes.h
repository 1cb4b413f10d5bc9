// The passes of each instance. Their definitions lie in *_launch.cuh; cuda/instances.txt says which
// are compiled, each into a file of its own.
#pragma once

#include "kernels.h"

namespace attnext::cuda::simt {

template <class A, class Term>
Status run_forward(const ForwardParams& params, Launch& launch);
template <class A, class Term>
Status run_backward(const BackwardParams& params, Launch& launch);
template <class A, class Term>
Status run_weights(const WeightsParams& params, Launch& launch);
template <class A, class Term>
Status run_stats(const StatsParams& params, Launch& launch);

}  // namespace attnext::cuda::simt
