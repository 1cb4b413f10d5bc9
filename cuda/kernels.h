// What the kernels offer and what they are given: the interface between cuda/host, which calls, and
// cuda/simt and cuda/mma, which define. Everything here has been validated and lies on the device.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "attention/device_params.h"
#include "attention/params.h"

namespace attnext::cuda {

// How a call ended.
struct Status {
  cudaError_t code = cudaSuccess;
  const char* call = nullptr;  // what failed: "cudaMalloc", or a kernel's name

  bool is_ok() const { return code == cudaSuccess; }
};

// A device, and what a kernel's shape may depend on. Results must not: tiles and splits follow from
// the problem alone, so that the bits are the same on any number of multiprocessors.
struct Device {
  int ordinal;
  int arch;  // 10 * major + minor: 75, 80, 90, 120
  int num_multiprocessors;
  int shared_memory_per_block;  // bytes a kernel may opt in to
  int shared_memory_per_multiprocessor;
  int max_threads_per_multiprocessor;
  cudaMemPool_t pool;  // of workspace; null: the device has none
};

// One call on its way to the device: where it runs, and the memory it may use meanwhile.
//
// A pass takes all of its workspace before its first launch, so that a lack of memory is found
// while nothing runs. The host releases it in stream order after the pass has returned, whatever it
// returned.
class Launch {
 public:
  Launch(cudaStream_t call_stream, const Device& call_device, const Problem* host)
      : stream(call_stream), device(call_device), host_problem(host) {}
  ~Launch();
  Launch(const Launch&) = delete;
  Launch& operator=(const Launch&) = delete;

  // `count` uninitialised elements, aligned to 256 bytes. Null: there is no memory, and `status()`
  // is what the pass returns. No elements: also null, and `status()` stays as it is.
  template <class T>
  T* take(int64_t count) {
    return static_cast<T*>(take_bytes(count * static_cast<int64_t>(sizeof(T))));
  }

  // The first failure of `take`, or of what `check` was given.
  const Status& status() const { return status_; }

  // Remembers the first failure; true while there is none. `call` outlives the call: a literal.
  bool check(cudaError_t code, const char* call) {
    if (status_.is_ok() && code != cudaSuccess) status_ = {code, call};
    return status_.is_ok();
  }

  const cudaStream_t stream;
  const Device& device;
  // The problem with its small arrays (sequences, scale, ..) readable on the host, for grids and
  // plans. Its tensors are on the device as everybody's. Null for merge and dropout_mask.
  const Problem* const host_problem;

 private:
  void* take_bytes(int64_t bytes);

  Status status_;
  std::vector<void*> taken_;
};

// Of the arrays they hold, `outs` and `lses` of a merge are on the device too.
using attnext::KeepMaskParams;
using attnext::MergeParams;

// The last step of a small option's gradient: parts [batch, num_heads, columns] are added in index
// order over the axes whose extent is 1, and rounded once into the float tensor behind `data`.
struct HeadSumParams {
  const double* parts;
  int64_t batch, num_heads, columns;
  TensorView gradient;  // data and dtype; its axes are below
  int64_t extents[3];   // of the result: batch or 1, num_heads or 1, columns
  int64_t strides[3];   // in elements; 0 where the extent is 1
};

// Bytes of the host as a kernel's parameter: CUDA has read them when the launch returns, and a
// graph that the stream is captured into keeps them.
struct Parcel {
  // Of the 4096 bytes of parameters that every architecture and driver takes.
  static constexpr int64_t kChunks = 254;
  uint4* target;
  int64_t num_chunks;
  uint4 chunks[kChunks];
};
static_assert(sizeof(Parcel) <= 4096);

// What both paths promise:
// - Every element of every present output is written, also by problems without keys or queries, for
//   rows beyond q_lengths (out 0, lse -inf, dq 0) and keys beyond kv_lengths (dk, dv 0). The
//   per-head parts of BackwardParams (dscale, ..) are given as zeros.
// - What finds gradients that nobody asked for does not run.
// - Work goes to launch.stream and nothing waits for it: no synchronisation, no host read.
// - Same inputs, same bits: no float atomics, fixed order of sums.
// - A failed launch is returned, with the kernel's name as `call`.

// FFMA (and double) kernels: every dtype and option, on every architecture from 75 on.
namespace simt {

Status forward(const ForwardParams& params, Launch& launch);
Status backward(const BackwardParams& params, Launch& launch);
Status weights(const WeightsParams& params, Launch& launch);
Status stats(const StatsParams& params, Launch& launch);
Status merge(const MergeParams& params, Launch& launch);
Status dropout_mask(const KeepMaskParams& params, Launch& launch);
Status sum_heads(const HeadSumParams& params, Launch& launch);
Status deliver(const Parcel& parcel, Launch& launch);

// The fields of a JSON object without its braces, as snprintf: what forward would run and why.
int describe_forward(const ForwardParams& params, const Device& device, char* text,
                     size_t capacity);

}  // namespace simt

// mma.sync kernels for 16-bit inputs; for float32 ones where `allows_tf32`: a product of float32 is
// then made from three of tf32.
namespace mma {

// Null: `forward` runs this problem. Otherwise why it does not, for explain: "head_dim is not a
// multiple of 8". Asked on every call, so it is cheap, and reads only the structs themselves.
const char* why_not_forward(const ForwardParams& params, bool allows_tf32, const Device& device);
const char* why_not_backward(const BackwardParams& params, bool allows_tf32, const Device& device);

Status forward(const ForwardParams& params, Launch& launch);
Status backward(const BackwardParams& params, Launch& launch);

int describe_forward(const ForwardParams& params, const Device& device, char* text,
                     size_t capacity);

}  // namespace mma

}  // namespace attnext::cuda
