// A table of launches: each must succeed, or fail with the words its row gives.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

namespace emulator_test {

struct Case {
  const char* name;
  std::function<std::string()> run;  // what went wrong, or empty
  const char* expected;  // words of it, or two choices with | between; empty: nothing goes wrong
};

inline bool matches(const std::string& found, const std::string& expected) {
  if (expected.empty()) return found.empty();
  const size_t bar = expected.find('|');
  if (found.find(expected.substr(0, bar)) != std::string::npos) return true;
  return bar != std::string::npos && found.find(expected.substr(bar + 1)) != std::string::npos;
}

// Memory of the device for one case, freed with it.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(const std::vector<T>& values) : count_(values.size()) {
    cudaMalloc(&data_, count_ * sizeof(T));
    cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice);
  }
  explicit DeviceArray(size_t count) : count_(count) { cudaMalloc(&data_, count * sizeof(T)); }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* data() const { return data_; }
  std::vector<T> values() const {
    std::vector<T> copy(count_);
    cudaMemcpy(copy.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost);
    return copy;
  }

 private:
  T* data_ = nullptr;
  size_t count_;
};

inline std::string explain(cudaError_t error) {
  return error == cudaSuccess ? "" : cudaGetErrorString(error);
}

// Waits for the launch that returned `launched`, and explains what failed.
inline std::string outcome(cudaError_t launched) {
  return explain(launched != cudaSuccess ? launched : cudaDeviceSynchronize());
}

// Under several seeds, since a fault may need its order. Returns the number of wrong rows.
inline int run_table(const std::vector<Case>& table, int seeds = 5) {
  int wrong = 0;
  for (const Case& row : table) {
    for (int seed = 1; seed <= seeds; ++seed) {
      setenv("ATTNEXT_EMULATOR_SEED", std::to_string(seed).c_str(), 1);
      const std::string found = row.run();
      if (matches(found, row.expected)) continue;
      ++wrong;
      std::printf("%s, seed %d: expected \"%s\", found \"%s\"\n", row.name, seed, row.expected,
                  found.c_str());
      break;
    }
  }
  std::printf("%zu cases, %d wrong\n", table.size(), wrong);
  return wrong;
}

}  // namespace emulator_test
