// Where a call's workspace comes from: the device's stream-ordered pool.
#include "kernels.h"

namespace attnext::cuda {

void* Launch::take_bytes(int64_t bytes) {
  if (bytes <= 0) return nullptr;
  void* memory = nullptr;
  taken_.reserve(taken_.size() + 1);  // what may throw comes first
  if (!check(cudaMallocAsync(&memory, static_cast<size_t>(bytes), stream), "cudaMallocAsync")) {
    return nullptr;
  }
  taken_.push_back(memory);
  return memory;
}

// In stream order: kernels still running keep what they use.
Launch::~Launch() {
  for (void* const memory : taken_) cudaFreeAsync(memory, stream);
}

}  // namespace attnext::cuda
