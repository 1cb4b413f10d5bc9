// How does host code start a kernel? As an operation on the stream, as a real launch is.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <type_traits>

#include "ptx/platform.h"

namespace emulator {

// Queues the launch; `kernel` runs one thread. The error of the launch itself.
cudaError_t enqueue_launch(std::function<void()> kernel, dim3 grid, dim3 block,
                           uint32_t shared_bytes, cudaStream_t stream);

}  // namespace emulator

namespace attnext::ptx {

template <class Params>
inline cudaError_t launch(void (*kernel)(Params), dim3 grid, dim3 block, uint32_t shared_bytes,
                          cudaStream_t stream, const std::type_identity_t<Params>& params) {
  return emulator::enqueue_launch([kernel, params] { kernel(params); }, grid, block, shared_bytes,
                                  stream);
}

}  // namespace attnext::ptx
