// How host memory travels to a device and back: a stream, and two pinned buffers in turn, so that
// one is filled or emptied while the other is on its way.
#pragma once

#include <cstddef>

#include "kernels.h"

namespace attnext::cuda {

class Lane {
 public:
  // One that no other call uses; made where all are in use.
  static Lane* acquire(const Device& device);
  // Waits for whatever is still on its way, then leaves the lane to the next call.
  static void release(Lane* lane) noexcept;

  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  cudaStream_t stream() const { return stream_; }

  // Packs the tensor, which lies in host memory, into `target` on the device.
  void send(const TensorView& source, void* target);
  // The reverse; returns when `target` holds everything.
  void receive(const void* source, const TensorView& target);

 private:
  static constexpr int kBuffers = 2;
  // A transfer of this size keeps PCIe busy for about 0.3 ms: far above what starting one costs.
  static constexpr int64_t kBufferBytes = int64_t{8} << 20;

  explicit Lane(int device) : device_(device) {}
  ~Lane();
  void open();
  void* buffer(int64_t turn) { return buffers_[turn % kBuffers]; }
  void wait_for(int64_t turn);
  void mark(int64_t turn);

  const int device_;
  cudaStream_t stream_ = nullptr;
  void* buffers_[kBuffers] = {};
  cudaEvent_t sent_[kBuffers] = {};
  int64_t next_turn_ = 0;  // whose buffer is used next, across tensors
};

struct ReleaseLane {
  void operator()(Lane* lane) const { Lane::release(lane); }
};

}  // namespace attnext::cuda
