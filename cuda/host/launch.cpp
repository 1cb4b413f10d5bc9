// Where a call's workspace comes from: the device's pool, in stream order; on a device without
// pools cudaMalloc, and a call then ends with a wait.
#include "kernels.h"

namespace attnext::cuda {

void* Launch::take_bytes(int64_t bytes) {
  if (bytes <= 0) return nullptr;
  const auto size = static_cast<size_t>(bytes);
  void* memory = nullptr;
  taken_.reserve(taken_.size() + 1);  // what may throw comes first
  const bool is_there = device.pool != nullptr
                            ? check(cudaMallocFromPoolAsync(&memory, size, device.pool, stream),
                                    "cudaMallocFromPoolAsync")
                            : check(cudaMalloc(&memory, size), "cudaMalloc");
  if (!is_there) return nullptr;
  taken_.push_back(memory);
  return memory;
}

// Kernels still running keep what they use.
Launch::~Launch() {
  if (device.pool == nullptr && !taken_.empty()) cudaStreamSynchronize(stream);
  for (void* const memory : taken_) {
    if (device.pool != nullptr) {
      cudaFreeAsync(memory, stream);
    } else {
      cudaFree(memory);
    }
  }
}

}  // namespace attnext::cuda
