// How a failure of the device becomes a sentence: the call that failed, and CUDA's own words.
#pragma once

#include <exception>
#include <string>

#include "api/plugin.h"
#include "kernels.h"

namespace attnext::cuda {

// What ends a call.
class Failure : public std::exception {
 public:
  explicit Failure(const Status& status) : status_(status) {}
  const Status& status() const { return status_; }
  const char* what() const noexcept override { return "a CUDA call failed"; }

 private:
  Status status_;
};

inline void require_ok(const Status& status) {
  if (!status.is_ok()) throw Failure(status);
}

inline void require_ok(cudaError_t code, const char* call) {
  if (code != cudaSuccess) throw Failure({code, call});
}

// Whether the device is lost to this process: CUDA then fails every further call alike.
bool is_lasting(cudaError_t code);

std::string version_text(int version);  // of CUDA: 13000 is 13.0
std::string describe_failure(const Status& status);

// Runs `body`, which may throw anything; nothing leaves it, and `error` says what happened.
attnext_status report(const std::exception* error, Text text) noexcept;

template <class Body>
attnext_status guarded(Text error, Body body) noexcept {
  try {
    body();
    return ATTNEXT_OK;
  } catch (const std::exception& failure) {
    return report(&failure, error);
  } catch (...) {
    return report(nullptr, error);
  }
}

void write_text(Text text, const std::string& sentence) noexcept;

}  // namespace attnext::cuda
