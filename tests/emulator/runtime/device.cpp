// Which devices are there? As many and of the architecture that the environment asks for:
// ATTNEXT_EMULATOR_DEVICES (1), ATTNEXT_EMULATOR_ARCH (90).
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "core/memory.h"
#include "runtime/queue.h"

namespace {

// Small, so that a grid of a test is larger.
constexpr int kMultiprocessors = 4;
constexpr size_t kTotalMemory = size_t{8} << 30;

thread_local int current_device = 0;

int from_environment(const char* name, int otherwise) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != 0 ? std::atoi(value) : otherwise;
}

int num_devices() { return from_environment("ATTNEXT_EMULATOR_DEVICES", 1); }
int architecture() { return from_environment("ATTNEXT_EMULATOR_ARCH", 90); }

// Shared memory of a multiprocessor in KiB; one block may have 1 KiB less (CUDA programming guide,
// "Technical specifications per compute capability"). sm_75: all of it.
int shared_kib() {
  switch (architecture()) {
    case 75:
      return 64;
    case 80:
      return 164;
    case 86:
    case 89:
    case 120:
      return 100;
    default:
      return 228;
  }
}

int shared_optin() { return (architecture() == 75 ? 64 : shared_kib() - 1) * 1024; }

int max_threads() {
  switch (architecture()) {
    case 75:
      return 1024;
    case 86:
    case 89:
    case 120:
      return 1536;
    default:
      return 2048;
  }
}

}  // namespace

cudaError_t cudaGetDeviceCount(int* count) {
  const std::lock_guard<std::recursive_mutex> lock(emulator::runtime_lock());
  *count = 0;
  if (emulator::is_made_to_fail("cudaGetDeviceCount")) {
    return emulator::remember(cudaErrorInsufficientDriver);
  }
  *count = num_devices();
  return *count > 0 ? cudaSuccess : emulator::remember(cudaErrorNoDevice);
}

cudaError_t cudaGetDevice(int* device) {
  *device = current_device;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  const std::lock_guard<std::recursive_mutex> lock(emulator::runtime_lock());
  if (emulator::is_made_to_fail("cudaSetDevice")) {
    return emulator::remember(cudaErrorInitializationError);
  }
  if (device < 0 || device >= num_devices()) return emulator::remember(cudaErrorInvalidDevice);
  current_device = device;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  const std::lock_guard<std::recursive_mutex> lock(emulator::runtime_lock());
  if (device < 0 || device >= num_devices()) return emulator::remember(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
      *value = 1024;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = 48 * 1024;
      return cudaSuccess;
    case cudaDevAttrWarpSize:
      *value = 32;
      return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
      *value = kMultiprocessors;
      return cudaSuccess;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      *value = max_threads();
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      *value = architecture() / 10;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = architecture() % 10;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = shared_kib() * 1024;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = shared_optin();
      return cudaSuccess;
    case cudaDevAttrMemoryPoolsSupported:
      *value = from_environment("ATTNEXT_EMULATOR_POOLS", 1);
      return cudaSuccess;
  }
  return emulator::remember(cudaErrorInvalidValue);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  const std::lock_guard<std::recursive_mutex> lock(emulator::runtime_lock());
  if (device < 0 || device >= num_devices()) return emulator::remember(cudaErrorInvalidDevice);
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "emulated sm_%d", architecture());
  properties->totalGlobalMem = kTotalMemory;
  properties->sharedMemPerBlock = 48 * 1024;
  properties->sharedMemPerBlockOptin = shared_optin();
  properties->sharedMemPerMultiprocessor = shared_kib() * 1024;
  properties->major = architecture() / 10;
  properties->minor = architecture() % 10;
  properties->multiProcessorCount = kMultiprocessors;
  properties->warpSize = 32;
  properties->maxThreadsPerBlock = 1024;
  properties->maxThreadsPerMultiProcessor = max_threads();
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  const std::lock_guard<std::recursive_mutex> lock(emulator::runtime_lock());
  *total = kTotalMemory;
  *free = kTotalMemory - emulator::allocated_bytes() - emulator::kept_bytes();
  return cudaSuccess;
}
