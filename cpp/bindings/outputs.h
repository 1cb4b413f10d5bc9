// How a result is made in the caller's own library.
#pragma once

#include <optional>

#include "bindings/arrays.h"

namespace attnext::bindings {

// A result in the making: uninitialised row-major memory, where q lies, that becomes an array of
// `like`'s library and place.
class Output {
 public:
  Output() = default;
  Output(const Array& like, const attnext_tensor& shape_and_dtype, const Array& q, int32_t backend);
  attnext_tensor tensor{};  // absent: a result that was not asked for
  py::object finish() const;

 private:
  void allocate_on_host(const Array& like);
  void allocate_on_device(const Array& q, int32_t backend);

  py::object like_;
  bool is_like_numpy_ = true, is_on_device_ = false;
  std::optional<ResultTensor> ours_;  // memory of ours that another library takes, or
  py::object theirs_;                 // an ndarray, or an array of like's library on a device
  BorrowedTensor borrowed_;           // the memory of the latter
};

}  // namespace attnext::bindings
