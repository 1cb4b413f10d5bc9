// How a failure of the device becomes a sentence: the call that failed, and CUDA's own words.
#include "host/failure.h"

#include <cstdio>
#include <new>

namespace attnext::cuda {
namespace {

// By number, as toolkits of 12.x lack some of the names: cudaErrorContained and
// cudaErrorTensorMemoryLeak.
constexpr int kContained = 226, kTensorMemoryLeak = 721;

}  // namespace

bool is_lasting(cudaError_t code) {
  switch (static_cast<int>(code)) {
    case kContained:
    case kTensorMemoryLeak:
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorECCUncorrectable:
    case cudaErrorMpsClientTerminated:
    case cudaErrorExternalDevice:
      return true;
    default:
      return false;
  }
}

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

namespace {

// CUDA calls a driver that is not there too old.
std::string describe_driver() {
  int driver = 0, needed = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0)
    return "; there is no NVIDIA driver on this machine";
  cudaRuntimeGetVersion(&needed);
  return "; the NVIDIA driver is for CUDA " + version_text(driver) +
         ", this build of attnext needs one for CUDA " + version_text(needed);
}

}  // namespace

std::string describe_failure(const Status& status) {
  std::string text = std::string(status.call) + " failed: " + cudaGetErrorString(status.code) +
                     " (" + cudaGetErrorName(status.code) + ")";
  if (is_lasting(status.code)) {
    text +=
        "; this, or an earlier call's kernel, has made the device unusable to this process: "
        "start a new one";
  } else if (status.code == cudaErrorInsufficientDriver) {
    text += describe_driver();
  } else if (status.code == cudaErrorNoKernelImageForDevice) {
    text += "; build attnext for this device, as with ATTNEXT_CUDA_ARCHS=native";
  }
  return text;
}

void write_text(Text text, const std::string& sentence) noexcept {
  if (text.capacity > 0) std::snprintf(text.data, text.capacity, "%s", sentence.c_str());
}

attnext_status report(const std::exception* error, Text text) noexcept {
  try {
    if (dynamic_cast<const std::bad_alloc*>(error) != nullptr) return ATTNEXT_OUT_OF_MEMORY;
    const auto* const failure = dynamic_cast<const Failure*>(error);
    if (failure != nullptr) {
      // Forgets the error, unless it is a lasting one, so that the next call starts anew.
      cudaGetLastError();
      write_text(text, describe_failure(failure->status()));
    } else {
      write_text(text, error != nullptr ? error->what() : "unknown failure");
    }
    return ATTNEXT_RUNTIME_ERROR;
  } catch (...) {
    return ATTNEXT_OUT_OF_MEMORY;
  }
}

}  // namespace attnext::cuda
