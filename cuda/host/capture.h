// What a call does while its stream is being captured into a graph: nothing that waits, and nothing
// that a later launch of the graph would find changed.
#pragma once

#include <stdexcept>
#include <string>

#include "host/failure.h"

namespace attnext::cuda {

inline bool is_captured(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  require_ok(cudaStreamIsCapturing(stream, &status), "cudaStreamIsCapturing");
  return status != cudaStreamCaptureStatusNone;
}

// `what` a capture has no room for: a clause.
inline void refuse_capture(cudaStream_t stream, const char* what) {
  if (!is_captured(stream)) return;
  throw std::runtime_error(std::string("the stream is being captured into a graph, and ") + what);
}

// While one lives this thread may set up what outlives a capture, whoever captures.
class SetupInCapture {
 public:
  SetupInCapture() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  ~SetupInCapture() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  SetupInCapture(const SetupInCapture&) = delete;
  SetupInCapture& operator=(const SetupInCapture&) = delete;

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

}  // namespace attnext::cuda
