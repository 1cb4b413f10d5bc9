// What the plug-in does for each pass: a session, the kernels that fit, the results.
#pragma once

#include <string>

#include "api/plugin.h"

namespace attnext::cuda {

// Each throws Failure.
void run_forward(const DeviceCall& call, const ForwardParams& params);
void run_backward(const DeviceCall& call, const BackwardParams& params,
                  const attnext_gradients& gradients);
void run_weights(const DeviceCall& call, const WeightsParams& params);
void run_stats(const DeviceCall& call, const StatsParams& params);
void run_merge(const DeviceCall& call, const MergeParams& params);
void run_dropout_mask(const DeviceCall& call, const KeepMaskParams& params);

// JSON fields: which kernel forward would be, on which device, and why no other.
std::string explain_forward(const DeviceCall& call, const Problem& problem);

}  // namespace attnext::cuda
