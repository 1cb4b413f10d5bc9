// From a call to the instance that its dtype and score need.
#include "simt/dispatch.h"
#include "simt/passes.h"

namespace attnext::cuda::simt {

Status forward(const ForwardParams& params, Launch& launch) {
  return with_instance(params.problem, [&](auto zero, auto term) {
    return run_forward<decltype(zero), decltype(term)>(params, launch);
  });
}

Status backward(const BackwardParams& params, Launch& launch) {
  return with_instance(params.problem, [&](auto zero, auto term) {
    return run_backward<decltype(zero), decltype(term)>(params, launch);
  });
}

Status weights(const WeightsParams& params, Launch& launch) {
  return with_instance(params.problem, [&](auto zero, auto term) {
    return run_weights<decltype(zero), decltype(term)>(params, launch);
  });
}

Status stats(const StatsParams& params, Launch& launch) {
  return with_instance(params.problem, [&](auto zero, auto term) {
    return run_stats<decltype(zero), decltype(term)>(params, launch);
  });
}

}  // namespace attnext::cuda::simt
