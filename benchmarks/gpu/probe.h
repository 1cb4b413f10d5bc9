// What do the probes share? Memory of the device, tensor maps, and lines of JSON.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace probe {

// A probe goes on only where everything before it went well.
inline void require(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return;
  std::printf("{\"status\": \"failed\", \"error\": \"%s: %s\"}\n", call, cudaGetErrorString(error));
  std::exit(1);
}

template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(const std::vector<T>& values) : count_(values.size()) {
    require(cudaMalloc(&data_, count_ * sizeof(T)), "cudaMalloc");
    require(cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice),
            "cudaMemcpy");
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* data() const { return data_; }
  void fill(int byte, const char* what) {
    require(cudaMemsetAsync(data_, byte, count_ * sizeof(T)), what);
  }
  // Waits for what was launched, whose failure shows here: `what` names it.
  std::vector<T> values(const char* what) const {
    std::vector<T> copy(count_);
    require(cudaDeviceSynchronize(), what);
    require(cudaMemcpy(copy.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost), what);
    return copy;
  }

 private:
  T* data_ = nullptr;
  size_t count_;
};

// The worst so far; what is not a number is as wrong as can be.
inline double larger(double worst, double error) {
  return std::isnan(error) ? INFINITY : std::fmax(worst, error);
}

// One line, which probes.py reads: how far the result is from what is right.
inline void say(double error, double allowed) {
  std::printf("{\"status\": \"%s\", \"error\": %.3g, \"allowed\": %.3g}\n",
              error <= allowed ? "ok" : "failed", error, allowed);
}

// cuTensorMapEncodeTiled, without linking the driver: a machine without one runs the rest.
inline decltype(&cuTensorMapEncodeTiled) encoder() {
#ifdef __CUDACC__
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result{};
  require(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000,
                                           cudaEnableDefault, &result),
          "cuTensorMapEncodeTiled");
  if (result != cudaDriverEntryPointSuccess)
    require(cudaErrorSymbolNotFound, "cuTensorMapEncodeTiled");
  return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(found);
#else
  return cuTensorMapEncodeTiled;
#endif
}

// [heads, rows, width] of 16-bit elements, contiguous, as slabs of `slab` columns (64: swizzled by
// 128 bytes, 32: by 64), so that one load fills the [width / slab][box_rows][slab] of a tile.
inline CUtensorMap slab_map(void* base, uint64_t heads, uint64_t rows, uint64_t width,
                            uint32_t box_rows, uint32_t slab = 64) {
  CUtensorMap map;
  const cuuint64_t extents[] = {slab, rows, width / slab, heads};
  const cuuint64_t strides[] = {width * 2, slab * 2, rows * width * 2};
  const cuuint32_t box[] = {slab, box_rows, static_cast<cuuint32_t>(width / slab), 1};
  const cuuint32_t ones[] = {1, 1, 1, 1};
  const CUresult result =
      encoder()(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, base, extents, strides, box, ones,
                CU_TENSOR_MAP_INTERLEAVE_NONE,
                slab == 64 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B,
                CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) require(cudaErrorInvalidValue, "cuTensorMapEncodeTiled");
  return map;
}

// bfloat16 on the host, to nearest even.
inline uint16_t to_bf16(float x) {
  uint32_t bits;
  static_assert(sizeof(bits) == sizeof(x));
  __builtin_memcpy(&bits, &x, sizeof(bits));
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
inline double from_bf16(uint16_t x) {
  const uint32_t bits = uint32_t{x} << 16;
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
}

// Values between -1 and 1 without a pattern of tiles.
inline std::vector<uint16_t> bf16_values(size_t count, uint32_t seed) {
  std::vector<uint16_t> values(count);
  for (uint16_t& value : values) {
    seed = seed * 1664525u + 1013904223u;
    value = to_bf16(static_cast<float>(static_cast<int32_t>(seed)) * 0x1p-31f);
  }
  return values;
}

// What the host knows of a probe: its name, as asked for on the command line, and how it is run.
struct Probe {
  const char* name;
  void (*run)();
};

// No argument: the names, a line each. Else: runs the probe of that name.
inline int run_named(const std::vector<Probe>& probes, int count, char** arguments) {
  for (const Probe& probe : probes) {
    if (count < 2) std::printf("%s\n", probe.name);
    if (count >= 2 && std::string(arguments[1]) == probe.name) {
      probe.run();
      return 0;
    }
  }
  return count < 2 ? 0 : 2;
}

}  // namespace probe
