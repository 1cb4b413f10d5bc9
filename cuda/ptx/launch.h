// How does host code start a kernel? Without <<<>>>, so that the emulator can do it too.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <type_traits>

#include "ptx/platform.h"

namespace attnext::ptx {

// Starts kernel(params) on `stream`. Asks for more than the 48 KiB of shared memory that every
// kernel may have where needed. The error of the launch; those of the run come with the stream.
template <class Params>
inline cudaError_t launch(void (*kernel)(Params), dim3 grid, dim3 block, uint32_t shared_bytes,
                          cudaStream_t stream, const std::type_identity_t<Params>& params) {
  if (shared_bytes > 48 * 1024) {
    const cudaError_t error =
        cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                             cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    if (error != cudaSuccess) return error;
  }
  void* arguments[] = {const_cast<void*>(static_cast<const void*>(&params))};
  return cudaLaunchKernel(reinterpret_cast<const void*>(kernel), grid, block, arguments,
                          shared_bytes, stream);
}

}  // namespace attnext::ptx
