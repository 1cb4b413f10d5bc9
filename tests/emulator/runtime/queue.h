// Streams and events: operations wait in their stream until somebody waits for them, or chance runs
// them earlier, so that a missing synchronisation of the host shows.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <string>

#include "core/random.h"

struct CUstream_st {
  explicit CUstream_st(bool blocking) : is_blocking(blocking) {}
  const bool is_blocking;  // takes part in the default stream's synchronisation
  uint64_t queued = 0, done = 0;
  std::deque<std::function<void()>> operations;
};

struct CUevent_st {
  cudaStream_t stream = nullptr;  // where it was last recorded; null: never
  uint64_t position = 0;
};

namespace emulator {

// Held by every function of the runtime: host threads take turns.
std::recursive_mutex& runtime_lock();

cudaStream_t resolve(cudaStream_t stream);  // null and the two constants: the default stream
bool is_stream(cudaStream_t stream);
cudaStream_t create_stream(bool is_blocking);
void destroy_stream(cudaStream_t stream);

void enqueue(cudaStream_t stream, std::function<void()> operation);
void run_until(cudaStream_t stream, uint64_t position);
void drain(cudaStream_t stream);
void drain_all();

// A failed check of a kernel, and CUDA errors: what the calls return and how they are explained.
void set_failure(cudaError_t error, std::string message);
cudaError_t remember(cudaError_t error, std::string message = {});
cudaError_t take_failure();  // of an operation that has run, once; then success again
cudaError_t take_last(bool forgets);
const std::string& failure_message(cudaError_t error);

// The environment asks this call to fail: while ATTNEXT_EMULATOR_FAIL is "cudaMallocAsync:3", every
// third call of that function does. Two names are not functions: "launch" (of a kernel) and
// "kernel" (its run, which a later call reports).
bool is_made_to_fail(const char* function);

}  // namespace emulator
