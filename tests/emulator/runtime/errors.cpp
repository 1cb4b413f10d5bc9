// What do errors say? CUDA's sentence, or the check that failed.
#include <cuda_runtime_api.h>

#include "runtime/queue.h"

namespace {

struct Row {
  cudaError_t error;
  const char *name, *sentence;
};

#define ROW(error, sentence) {error, #error, sentence}
constexpr Row kRows[] = {
    ROW(cudaSuccess, "no error"),
    ROW(cudaErrorInvalidValue, "invalid argument"),
    ROW(cudaErrorMemoryAllocation, "out of memory"),
    ROW(cudaErrorInitializationError, "initialization error"),
    ROW(cudaErrorInvalidConfiguration, "invalid configuration argument"),
    ROW(cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy"),
    ROW(cudaErrorInsufficientDriver,
        "CUDA driver version is insufficient for CUDA runtime version"),
    ROW(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    ROW(cudaErrorInvalidDevice, "invalid device ordinal"),
    ROW(cudaErrorNoKernelImageForDevice,
        "no kernel image is available for execution on the device"),
    ROW(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    ROW(cudaErrorNotReady, "device not ready"),
    ROW(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
    ROW(cudaErrorLaunchOutOfResources, "too many resources requested for launch"),
    ROW(cudaErrorMisalignedAddress, "misaligned address"),
    ROW(cudaErrorLaunchFailure, "unspecified launch failure"),
    ROW(cudaErrorNotSupported, "operation not supported"),
    ROW(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing"),
    ROW(cudaErrorUnknown, "unknown error"),
};
#undef ROW

const Row& row_of(cudaError_t error) {
  for (const Row& row : kRows) {
    if (row.error == error) return row;
  }
  static constexpr Row kUnknown = {cudaErrorUnknown, "cudaErrorUnknown", "unknown error"};
  return kUnknown;
}

}  // namespace

const char* cudaGetErrorName(cudaError_t error) { return row_of(error).name; }

const char* cudaGetErrorString(cudaError_t error) {
  const std::lock_guard<std::recursive_mutex> lock(emulator::runtime_lock());
  // A copy for the caller's thread: the original may be replaced meanwhile.
  thread_local std::string message;
  message = emulator::failure_message(error);
  return message.empty() ? row_of(error).sentence : message.c_str();
}
