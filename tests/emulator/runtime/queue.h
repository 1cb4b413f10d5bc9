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

// Whether the stream, or null: any, is being captured into a graph. While ATTNEXT_EMULATOR_CAPTURE
// is set, the default one is: what it is given runs when the variable is gone, as a graph's first
// launch.
bool is_captured(cudaStream_t stream);

// Success where the host may wait for the stream, or null: for all. A capture forbids it, and so
// does an ATTNEXT_EMULATOR_FAIL of "wait".
cudaError_t refuse_to_wait(cudaStream_t stream);

// Pools give back what is beyond their thresholds: what a wait ends with.
void trim_pools();
size_t kept_bytes();  // by pools, allocated by nobody

// A failed check of a kernel, and CUDA errors: what the calls return and how they are explained.
void set_failure(cudaError_t error, std::string message);
cudaError_t remember(cudaError_t error, std::string message = {});
cudaError_t take_failure();  // of an operation that has run, once; then success again
cudaError_t take_last(bool forgets);
const std::string& failure_message(cudaError_t error);

// The environment asks this call to fail: while ATTNEXT_EMULATOR_FAIL is "cudaMalloc:3", every
// third call of that function does. Three names are not functions: "launch" (of a kernel), "kernel"
// (its run, which a later call reports) and "wait" (of the host for a stream, in any function).
bool is_made_to_fail(const char* function);

}  // namespace emulator
