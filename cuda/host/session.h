// One call from its arguments to its results: tensors and small arrays brought to the device,
// results brought back, everything released whatever happens.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "api/plugin.h"
#include "host/capture.h"
#include "host/device.h"
#include "host/lane.h"

namespace attnext::cuda {

class Session {
 public:
  explicit Session(const DeviceCall& call);
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // Each makes its argument one on the device, in place.
  void bring(TensorView& input);
  void bring_output(TensorView& output);
  void bring_problem(Problem& problem);
  // Of an array in host memory, which stays as it is until `send`.
  template <class T>
  void bring_array(const T*& array, int64_t count) {
    add_array(reinterpret_cast<const void**>(&array), array, count * int64_t{sizeof(T)});
  }
  // All small arrays travel at once: their addresses hold from here on.
  void send();
  // Zeroed memory; throws Failure.
  double* take_zeros(int64_t count);
  void fill_zero(const TensorView& t);

  Launch& launch() { return launch_; }
  const Device& device() const { return device_; }

  // Results in host memory are complete afterwards. Queued work may have failed: this says so.
  void finish();

 private:
  struct Array {
    const void** address;  // of the pointer that becomes one on the device
    const void* data;
    int64_t bytes, offset;
  };
  struct Output {
    const void* memory;
    TensorView target;
  };

  void add_array(const void** address, const void* data, int64_t bytes);
  void add_table(TensorView& table);

  const DeviceGuard guard_;
  // With a lane, whose stream is never captured: captures of others do not concern it.
  const std::optional<SetupInCapture> setup_;
  const Device& device_;
  const std::unique_ptr<Lane, ReleaseLane> lane_;  // null in CUDA memory; outlives launch_
  Problem host_problem_{};
  Launch launch_;
  std::vector<Array> arrays_;
  std::vector<std::vector<char>> tables_;
  std::vector<Output> outputs_;
};

}  // namespace attnext::cuda
