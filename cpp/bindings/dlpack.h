// The DLPack protocol: how another library lends us a tensor, and takes one of ours.
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
  // Through the table that the producer's type has for calls from C; empty where it has none, where
  // the table refuses, and where the tensor is not in host memory.
  static BorrowedTensor on_host(py::handle producer);
  BorrowedTensor(BorrowedTensor&& other) noexcept { *this = std::move(other); }
  BorrowedTensor& operator=(BorrowedTensor&& other) noexcept {
    std::swap(legacy_, other.legacy_);
    std::swap(versioned_, other.versioned_);
    return *this;
  }
  ~BorrowedTensor();

  explicit operator bool() const { return versioned_ || legacy_; }
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

// A contiguous result on its way to another library, which takes it by `from_dlpack`, or in C.
class ResultTensor {
 public:
  explicit ResultTensor(const attnext_tensor& tensor);
  // On a device of `backend`; raises Refusal where there is no memory.
  ResultTensor(const attnext_tensor& tensor, int32_t backend, int32_t device);
  DLDevice device() const { return device_; }
  void* data() const { return memory_.get(); }
  py::capsule dlpack(bool is_versioned) const;
  // Of memory of its own, on the same device or in host memory.
  ResultTensor copied_to(DLDevice device) const;
  // As an array of the type of `like`, where that has a table for it; null elsewhere.
  py::object taken_by(py::handle like) const;

 private:
  std::shared_ptr<void> memory_;
  attnext_tensor tensor_;
  DLDevice device_{kDLCPU, 0};
  int32_t backend_ = ATTNEXT_CPU;
};

// For attnext_host_free; raises MemoryError. Aligned as JAX must have it to take it without a copy.
void* host_memory(size_t bytes);

void register_result_tensor(py::module_& m);

attnext_dtype dlpack_dtype(const DLDataType& type);  // ATTNEXT_ABSENT: none of ours

}  // namespace attnext::bindings
