// Which CUDA devices there are, and what they can do.
#include "host/device.h"

#include <cstdio>
#include <mutex>
#include <stdexcept>
#include <vector>

#include "host/capture.h"
#include "host/failure.h"

namespace attnext::cuda {
namespace {

int attribute(cudaDeviceAttr which, int ordinal) {
  int value = 0;
  require_ok(cudaDeviceGetAttribute(&value, which, ordinal), "cudaDeviceGetAttribute");
  return value;
}

// What a device may keep of workspace when it is waited for. Without a pool of our own that is
// nothing, and each staged call maps its memory anew. On CUDA arrays, backward takes 12 to 60 bytes
// for a row of a head: this holds four million rows. Staged tensors that do not fit are on their
// way for 10 ms at 25 GB/s of PCIe, whatever mapping them costs. It is 3% of a device of 8 GB, and
// kept only once it was needed.
constexpr uint64_t kKeptBytes = uint64_t{256} << 20;

// Null where the device, or its driver, has none.
cudaMemPool_t create_pool(int ordinal) {
  if (attribute(cudaDevAttrMemoryPoolsSupported, ordinal) == 0) return nullptr;
  cudaMemPoolProps properties{};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location.type = cudaMemLocationTypeDevice;
  properties.location.id = ordinal;
  cudaMemPool_t pool = nullptr;
  const SetupInCapture setup;
  require_ok(cudaMemPoolCreate(&pool, &properties), "cudaMemPoolCreate");
  uint64_t kept = kKeptBytes;
  const cudaError_t code = cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &kept);
  if (code != cudaSuccess) cudaMemPoolDestroy(pool);
  require_ok(code, "cudaMemPoolSetAttribute");
  return pool;
}

Device read_device(int ordinal) {
  Device device{};
  device.ordinal = ordinal;
  device.arch = 10 * attribute(cudaDevAttrComputeCapabilityMajor, ordinal) +
                attribute(cudaDevAttrComputeCapabilityMinor, ordinal);
  device.num_multiprocessors = attribute(cudaDevAttrMultiProcessorCount, ordinal);
  device.shared_memory_per_block = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, ordinal);
  device.shared_memory_per_multiprocessor =
      attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor, ordinal);
  device.max_threads_per_multiprocessor =
      attribute(cudaDevAttrMaxThreadsPerMultiProcessor, ordinal);
  device.pool = create_pool(ordinal);
  return device;
}

int count_devices() {
  int count = 0;
  require_ok(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
  if (count == 0) throw Failure({cudaErrorNoDevice, "cudaGetDeviceCount"});
  return count;
}

std::string capability_text(const Device& device) {
  return "compute capability " + std::to_string(device.arch / 10) + "." +
         std::to_string(device.arch % 10);
}

// Building for it is no cure, as for a device that is too new.
void require_new_enough(const Device& device, const std::string& found) {
  if (device.arch >= kOldestArch) return;
  throw std::runtime_error(found + ": too old, kernels are for 7.5 and later");
}

std::string gibibytes(size_t bytes) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.2f", static_cast<double>(bytes) / (size_t{1} << 30));
  return text;
}

}  // namespace

const Device& device_at(int32_t ordinal) {
  static std::mutex mutex;
  static std::vector<Device*> known;  // never freed: calls may hold them when the process ends
  const std::lock_guard lock(mutex);
  for (const Device* device : known) {
    if (device->ordinal == ordinal) return *device;
  }
  if (ordinal >= count_devices()) {
    throw Failure({cudaErrorInvalidDevice, "cudaSetDevice"});
  }
  known.push_back(new Device(read_device(ordinal)));
  return *known.back();
}

const Device& usable_device(int32_t ordinal) {
  const Device& device = device_at(ordinal);
  require_new_enough(device,
                     "device " + std::to_string(ordinal) + " has " + capability_text(device));
  return device;
}

std::string describe_devices() {
  const int count = count_devices();
  int driver = 0;
  require_ok(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  const Device& first = device_at(0);
  const DeviceGuard guard(0);
  size_t free_bytes = 0, total_bytes = 0;
  require_ok(cudaMemGetInfo(&free_bytes, &total_bytes), "cudaMemGetInfo");
  const std::string found = std::to_string(count) + (count == 1 ? " device" : " devices") +
                            ", the first with " + capability_text(first) + " and " +
                            std::to_string(first.num_multiprocessors) + " multiprocessors, " +
                            gibibytes(free_bytes) + " of " + gibibytes(total_bytes) +
                            " GiB free, driver for CUDA " + version_text(driver);
  require_new_enough(first, found);
  return found;
}

DeviceGuard::DeviceGuard(int32_t ordinal) {
  require_ok(cudaGetDevice(&before_), "cudaGetDevice");
  if (before_ == ordinal) {
    before_ = -1;
  } else {
    require_ok(cudaSetDevice(ordinal), "cudaSetDevice");
  }
}

DeviceGuard::~DeviceGuard() {
  if (before_ >= 0) cudaSetDevice(before_);
}

}  // namespace attnext::cuda
