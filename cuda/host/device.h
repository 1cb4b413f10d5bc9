// Which CUDA devices there are, and what they can do.
#pragma once

#include <string>

#include "kernels.h"

namespace attnext::cuda {

// The oldest architecture kernels are built for.
constexpr int kOldestArch = 75;

// Facts of a device, asked once; throws Failure where there is none of this number.
const Device& device_at(int32_t ordinal);

// Likewise, of a device that kernels are built for: throws where it is older.
const Device& usable_device(int32_t ordinal);

// A sentence on what there is; throws Failure where no device is usable.
std::string describe_devices();

// Makes a device current for a while: the caller's own choice comes back.
class DeviceGuard {
 public:
  explicit DeviceGuard(int32_t ordinal);
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int before_ = 0;
};

}  // namespace attnext::cuda
