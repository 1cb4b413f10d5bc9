// The plug-in's one symbol: its functions as libattnext calls them, failures as statuses.
#include "api/plugin.h"

#include "host/capture.h"
#include "host/device.h"
#include "host/failure.h"
#include "host/passes.h"

namespace attnext::cuda {
namespace {

// A pass as the table has it.
template <auto run, class... Params>
attnext_status call_pass(const DeviceCall& call, const Params&... params, Text error) {
  return guarded(error, [&] { run(call, params...); });
}

attnext_status status(Text text) {
  return guarded(text, [&] { write_text(text, describe_devices()); });
}

attnext_status explain(const DeviceCall& call, const Problem& problem, Text text) {
  return guarded(text, [&] { write_text(text, explain_forward(call, problem)); });
}

attnext_status allocate(int32_t device, size_t bytes, void** memory, Text error) {
  return guarded(error, [&] {
    const DeviceGuard guard(device);
    device_at(device);
    require_ok(cudaMalloc(memory, bytes > 0 ? bytes : 1), "cudaMalloc");
  });
}

// Waits until the device has finished with it.
attnext_status free_memory(int32_t device, void* memory, Text error) {
  return guarded(error, [&] {
    const DeviceGuard guard(device);
    const SetupInCapture setup;
    require_ok(cudaFree(memory), "cudaFree");
  });
}

attnext_status copy(const DeviceCall& call, void* target, const void* source, size_t bytes,
                    Text error) {
  return guarded(error, [&] {
    const DeviceGuard guard(call.device);
    const auto stream = static_cast<cudaStream_t>(call.stream);
    refuse_capture(stream, "no copy or result can be waited for before it is launched");
    if (bytes > 0) {
      require_ok(cudaMemcpyAsync(target, source, bytes, cudaMemcpyDefault, stream),
                 "cudaMemcpyAsync");
    }
    require_ok(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  });
}

constexpr Plugin kPlugin{
    .layout = kPluginLayout,
    .status = status,
    .forward = call_pass<run_forward, ForwardParams>,
    .backward = call_pass<run_backward, BackwardParams, attnext_gradients>,
    .weights = call_pass<run_weights, WeightsParams>,
    .stats = call_pass<run_stats, StatsParams>,
    .merge = call_pass<run_merge, MergeParams>,
    .dropout_mask = call_pass<run_dropout_mask, KeepMaskParams>,
    .explain = explain,
    .allocate = allocate,
    .free = free_memory,
    .copy = copy,
};

}  // namespace
}  // namespace attnext::cuda

extern "C" ATTNEXT_API const attnext::Plugin* attnext_cuda_plugin() {
  return &attnext::cuda::kPlugin;
}
