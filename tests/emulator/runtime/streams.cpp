// Streams, events, launches and the error they leave, as the host sees them.
#include <cuda_runtime_api.h>

#include "core/launch.h"
#include "core/report.h"
#include "ptx/launch.h"
#include "runtime/queue.h"

namespace {

using Lock = std::lock_guard<std::recursive_mutex>;

cudaError_t bad_handle() { return emulator::remember(cudaErrorInvalidResourceHandle); }

}  // namespace

namespace emulator {

cudaError_t enqueue_launch(std::function<void()> kernel, dim3 grid, dim3 block,
                           uint32_t shared_bytes, cudaStream_t stream) {
  const Lock lock(runtime_lock());
  stream = resolve(stream);
  if (is_made_to_fail("launch")) return remember(cudaErrorLaunchOutOfResources);
  if (!is_stream(stream)) return bad_handle();
  const LaunchShape shape{grid, block, shared_bytes};
  std::string wrong = refuse_shape(shape);
  int optin = 0, device = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&optin, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (shared_bytes > static_cast<uint32_t>(optin)) {
    wrong =
        text("the device has ", optin, " bytes of shared memory for a block, not ", shared_bytes);
  }
  if (!wrong.empty()) return remember(cudaErrorInvalidConfiguration, wrong);
  const bool fails = is_made_to_fail("kernel");
  enqueue(stream, [=] {
    const std::string error = fails ? "this kernel was made to fail" : run_grid(shape, kernel);
    if (!error.empty()) set_failure(cudaErrorLaunchFailure, error);
  });
  return cudaSuccess;
}

}  // namespace emulator

cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) { return cudaSuccess; }

cudaError_t cudaGetLastError() {
  const Lock lock(emulator::runtime_lock());
  emulator::take_failure();
  return emulator::take_last(true);
}
cudaError_t cudaPeekAtLastError() {
  const Lock lock(emulator::runtime_lock());
  emulator::take_failure();
  return emulator::take_last(false);
}

cudaError_t cudaDeviceSynchronize() {
  const Lock lock(emulator::runtime_lock());
  if (const cudaError_t error = emulator::refuse_to_wait(nullptr)) return error;
  emulator::drain_all();
  emulator::trim_pools();
  return emulator::take_failure();
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  const Lock lock(emulator::runtime_lock());
  stream = emulator::resolve(stream);
  if (!emulator::is_stream(stream)) return bad_handle();
  *status =
      emulator::is_captured(stream) ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  const Lock lock(emulator::runtime_lock());
  *stream = nullptr;
  if (emulator::is_made_to_fail("cudaStreamCreateWithFlags")) {
    return emulator::remember(cudaErrorMemoryAllocation);
  }
  *stream = emulator::create_stream(flags != cudaStreamNonBlocking);
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const Lock lock(emulator::runtime_lock());
  if (!emulator::is_stream(stream)) return bad_handle();
  emulator::destroy_stream(stream);
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const Lock lock(emulator::runtime_lock());
  stream = emulator::resolve(stream);
  if (!emulator::is_stream(stream)) return bad_handle();
  if (const cudaError_t error = emulator::refuse_to_wait(stream)) return error;
  emulator::drain(stream);
  emulator::trim_pools();
  if (emulator::is_made_to_fail("cudaStreamSynchronize")) {
    return emulator::remember(cudaErrorLaunchFailure);
  }
  return emulator::take_failure();
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  const Lock lock(emulator::runtime_lock());
  stream = emulator::resolve(stream);
  if (!emulator::is_stream(stream)) return bad_handle();
  if (stream->done < stream->queued) {
    emulator::run_until(stream, stream->done + 1);
    return cudaErrorNotReady;
  }
  return emulator::take_failure();
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const Lock lock(emulator::runtime_lock());
  stream = emulator::resolve(stream);
  if (!emulator::is_stream(stream) || event == nullptr) return bad_handle();
  if (event->stream == nullptr) return cudaSuccess;
  emulator::enqueue(stream, [recorded = *event] {
    if (emulator::is_stream(recorded.stream)) {
      emulator::run_until(recorded.stream, recorded.position);
    }
  });
  return emulator::take_failure();
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, cudaEventDefault);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const Lock lock(emulator::runtime_lock());
  stream = emulator::resolve(stream);
  if (!emulator::is_stream(stream) || event == nullptr) return bad_handle();
  *event = {stream, stream->queued};
  return emulator::take_failure();
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const Lock lock(emulator::runtime_lock());
  if (event == nullptr) return bad_handle();
  if (event->stream != nullptr && emulator::is_stream(event->stream)) {
    if (const cudaError_t error = emulator::refuse_to_wait(event->stream)) return error;
    emulator::run_until(event->stream, event->position);
    emulator::trim_pools();
  }
  return emulator::take_failure();
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  const Lock lock(emulator::runtime_lock());
  if (event == nullptr) return bad_handle();
  const bool is_known = event->stream != nullptr && emulator::is_stream(event->stream);
  if (is_known && emulator::is_captured(event->stream)) {
    return emulator::remember(cudaErrorStreamCaptureUnsupported);
  }
  if (is_known && event->stream->done < event->position) {
    emulator::run_until(event->stream, event->stream->done + 1);
    return cudaErrorNotReady;
  }
  return emulator::take_failure();
}
// Time means nothing here; a positive number keeps divisions by it sound.
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
  *milliseconds = 1.0f;
  return cudaSuccess;
}
