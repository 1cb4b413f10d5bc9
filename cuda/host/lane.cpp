// How host memory travels to a device and back: a stream, and two pinned buffers in turn, so that
// one is filled or emptied while the other is on its way.
#include "host/lane.h"

#include <mutex>
#include <utility>
#include <vector>

#include "host/failure.h"
#include "host/packing.h"

namespace attnext::cuda {
namespace {

struct Pool {
  std::mutex mutex;
  std::vector<Lane*> idle;
};

// Never destroyed: CUDA may be gone by the time destructors of static objects run.
Pool& pool() {
  static Pool* const the_pool = new Pool;
  return *the_pool;
}

}  // namespace

Lane* Lane::acquire(const Device& device) {
  {
    const std::lock_guard lock(pool().mutex);
    for (Lane*& lane : pool().idle) {
      if (lane->device_ != device.ordinal) continue;
      std::swap(lane, pool().idle.back());
      Lane* const found = pool().idle.back();
      pool().idle.pop_back();
      return found;
    }
    pool().idle.reserve(pool().idle.size() + 8);  // so that release need not allocate
  }
  Lane* const lane = new Lane(device.ordinal);
  try {
    lane->open();
  } catch (...) {
    delete lane;
    throw;
  }
  return lane;
}

void Lane::release(Lane* lane) noexcept {
  const bool is_sound = cudaStreamSynchronize(lane->stream_) == cudaSuccess;
  const std::lock_guard lock(pool().mutex);
  if (is_sound && pool().idle.size() < pool().idle.capacity()) {
    pool().idle.push_back(lane);
  } else {
    delete lane;
  }
}

void Lane::open() {
  require_ok(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking),
             "cudaStreamCreateWithFlags");
  for (int i = 0; i < kBuffers; ++i) {
    require_ok(cudaMallocHost(&buffers_[i], kBufferBytes), "cudaMallocHost");
    require_ok(cudaEventCreateWithFlags(&sent_[i], cudaEventDisableTiming),
               "cudaEventCreateWithFlags");
  }
}

Lane::~Lane() {
  for (int i = 0; i < kBuffers; ++i) {
    if (sent_[i] != nullptr) cudaEventDestroy(sent_[i]);
    if (buffers_[i] != nullptr) cudaFreeHost(buffers_[i]);
  }
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

void Lane::wait_for(int64_t turn) {
  require_ok(cudaEventSynchronize(sent_[turn % kBuffers]), "cudaEventSynchronize");
}

void Lane::mark(int64_t turn) {
  require_ok(cudaEventRecord(sent_[turn % kBuffers], stream_), "cudaEventRecord");
}

void Lane::send(const TensorView& source, void* target) {
  const int64_t size = kDTypes[source.dtype].size, total = packed_count(source);
  const int64_t step = kBufferBytes / size;
  for (int64_t first = 0; first < total; first += step) {
    const int64_t count = min_of(step, total - first), turn = next_turn_++;
    wait_for(turn);  // what this buffer held before, of this tensor or another, has left
    gather(source, first, count, buffer(turn));
    require_ok(cudaMemcpyAsync(static_cast<char*>(target) + first * size, buffer(turn),
                               static_cast<size_t>(count * size), cudaMemcpyHostToDevice, stream_),
               "cudaMemcpyAsync to the device");
    mark(turn);
  }
}

void Lane::receive(const void* source, const TensorView& target) {
  const int64_t size = kDTypes[target.dtype].size, total = packed_count(target);
  const int64_t step = kBufferBytes / size, num_chunks = divide_up(total, step);
  const int64_t first_turn = next_turn_;
  next_turn_ += num_chunks;
  for (int64_t chunk = 0; chunk <= num_chunks; ++chunk) {
    const int64_t first = chunk * step, turn = first_turn + chunk;
    if (chunk < num_chunks) {
      const size_t bytes = static_cast<size_t>(min_of(step, total - first) * size);
      wait_for(turn);
      require_ok(cudaMemcpyAsync(buffer(turn), static_cast<const char*>(source) + first * size,
                                 bytes, cudaMemcpyDeviceToHost, stream_),
                 "cudaMemcpyAsync from the device");
      mark(turn);
    }
    if (chunk == 0) continue;
    // The one before is emptied while this one is on its way.
    wait_for(turn - 1);
    scatter(target, first - step, min_of(step, total - first + step), buffer(turn - 1));
  }
}

}  // namespace attnext::cuda
