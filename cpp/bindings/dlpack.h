// How arrays of other libraries come in, and results go out: the DLPack protocol.
#pragma once

#include <dlpack/dlpack.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <utility>

#include "attnext/attnext.h"

namespace attnext::bindings {

namespace py = pybind11;

// A tensor that another library lent us. Its deleter runs exactly once, also when the call fails.
class BorrowedTensor {
 public:
  BorrowedTensor() = default;
  // Asks `producer` for a capsule, versioned or legacy, and takes it over. `stream`: what the array
  // API calls the consumer's, for memory on a device.
  explicit BorrowedTensor(py::handle producer, const py::object& stream = py::none());
  BorrowedTensor(BorrowedTensor&& other) noexcept { *this = std::move(other); }
  BorrowedTensor& operator=(BorrowedTensor&& other) noexcept {
    std::swap(legacy_, other.legacy_);
    std::swap(versioned_, other.versioned_);
    return *this;
  }
  ~BorrowedTensor();

  const DLTensor& operator*() const {
    return versioned_ ? versioned_->dl_tensor : legacy_->dl_tensor;
  }
  bool is_read_only() const {
    return versioned_ && (versioned_->flags & DLPACK_FLAG_BITMASK_READ_ONLY);
  }

 private:
  DLManagedTensor* legacy_ = nullptr;
  DLManagedTensorVersioned* versioned_ = nullptr;
};

// A contiguous result on its way to another library, which takes it by `from_dlpack`.
class ResultTensor {
 public:
  ResultTensor(const attnext_tensor& tensor, int64_t num_bytes);
  // On a device of `backend`; raises Refusal where there is no memory.
  ResultTensor(const attnext_tensor& tensor, int64_t num_bytes, int32_t backend, int32_t device);
  DLDevice device() const { return device_; }
  void* data() const { return memory_.get(); }
  py::capsule dlpack(bool is_versioned) const;

 private:
  std::shared_ptr<void> memory_;
  attnext_tensor tensor_;
  DLDevice device_{kDLCPU, 0};
};

void register_result_tensor(py::module_& m);

attnext_dtype dlpack_dtype(const DLDataType& type);  // ATTNEXT_ABSENT: none of ours

}  // namespace attnext::bindings
