// Running what streams hold, now or later.
#include "runtime/queue.h"

#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "core/memory.h"

namespace emulator {
namespace {

struct State {
  std::vector<std::unique_ptr<CUstream_st>> streams;
  CUstream_st default_stream{true};
  Random random{7};
  cudaError_t pending = cudaSuccess;  // of an operation, not yet returned
  cudaError_t last = cudaSuccess;     // for cudaGetLastError
  std::string message;
  cudaError_t message_of = cudaSuccess;
  std::string fail_request;
  int calls_until_failure = 0;
};

State& state() {
  static State the_state;
  return the_state;
}

void run_one(cudaStream_t stream) {
  const std::function<void()> operation = std::move(stream->operations.front());
  stream->operations.pop_front();
  operation();
  ++stream->done;
}

}  // namespace

std::recursive_mutex& runtime_lock() {
  static std::recursive_mutex lock;
  return lock;
}

cudaStream_t resolve(cudaStream_t stream) {
  const bool is_default =
      stream == nullptr || stream == cudaStreamLegacy || stream == cudaStreamPerThread;
  return is_default ? &state().default_stream : stream;
}

bool is_stream(cudaStream_t stream) {
  if (stream == &state().default_stream) return true;
  for (const auto& known : state().streams) {
    if (known.get() == stream) return true;
  }
  return false;
}

cudaStream_t create_stream(bool is_blocking) {
  state().streams.push_back(std::make_unique<CUstream_st>(is_blocking));
  return state().streams.back().get();
}

void destroy_stream(cudaStream_t stream) {
  drain(stream);
  std::erase_if(state().streams, [&](const auto& known) { return known.get() == stream; });
}

bool is_captured(cudaStream_t stream) {
  const char* const capture = std::getenv("ATTNEXT_EMULATOR_CAPTURE");
  const bool is_on = capture != nullptr && *capture != 0;
  return is_on && (stream == nullptr || stream == &state().default_stream);
}

cudaError_t refuse_to_wait(cudaStream_t stream) {
  if (is_captured(stream)) return remember(cudaErrorStreamCaptureUnsupported);
  if (is_made_to_fail("wait")) return remember(cudaErrorUnknown, "a wait of the host");
  return cudaSuccess;
}

void run_until(cudaStream_t stream, uint64_t position) {
  if (is_captured(stream)) return;
  if (stream->done >= position || stream->operations.empty()) return;
  const DeviceMemoryOpen scope;
  while (stream->done < position && !stream->operations.empty()) run_one(stream);
}

void drain(cudaStream_t stream) { run_until(stream, stream->queued); }

void drain_all() {
  drain(&state().default_stream);
  for (size_t i = 0; i < state().streams.size(); ++i) drain(state().streams[i].get());
}

void enqueue(cudaStream_t stream, std::function<void()> operation) {
  // The default stream and the blocking ones wait for each other.
  if (stream == &state().default_stream) {
    for (const auto& other : state().streams) {
      if (other->is_blocking) drain(other.get());
    }
  } else if (stream->is_blocking) {
    drain(&state().default_stream);
  }
  stream->operations.push_back(std::move(operation));
  ++stream->queued;
  if (state().random.one_in(3)) drain(stream);
}

void set_failure(cudaError_t error, std::string message) {
  State& s = state();
  if (s.pending != cudaSuccess) return;  // the first one explains the others
  s.pending = error;
  s.message = std::move(message);
  s.message_of = error;
}

cudaError_t remember(cudaError_t error, std::string message) {
  State& s = state();
  if (error == cudaSuccess) return error;
  s.last = error;
  if (!message.empty()) {
    s.message = std::move(message);
    s.message_of = error;
  }
  return error;
}

cudaError_t take_failure() {
  State& s = state();
  const cudaError_t error = s.pending;
  s.pending = cudaSuccess;
  return remember(error);
}

cudaError_t take_last(bool forgets) {
  const cudaError_t error = state().last;
  if (forgets) state().last = cudaSuccess;
  return error;
}

const std::string& failure_message(cudaError_t error) {
  static const std::string none;
  return state().message_of == error ? state().message : none;
}

bool is_made_to_fail(const char* function) {
  State& s = state();
  const char* request = std::getenv("ATTNEXT_EMULATOR_FAIL");
  if (request == nullptr || *request == 0) {
    s.fail_request.clear();
    return false;
  }
  const char* colon = std::strchr(request, ':');
  const size_t name_length = colon != nullptr ? colon - request : std::strlen(request);
  if (s.fail_request != request) {
    s.fail_request = request;
    s.calls_until_failure = colon != nullptr ? std::atoi(colon + 1) : 1;
  }
  if (std::strlen(function) != name_length || std::strncmp(function, request, name_length) != 0) {
    return false;
  }
  if (--s.calls_until_failure > 0) return false;
  s.fail_request.clear();  // counts anew
  return true;
}

}  // namespace emulator
