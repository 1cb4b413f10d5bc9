// How an array argument is unpacked, and a result is made in the caller's own library.
#pragma once

#include <pybind11/numpy.h>

#include <string>

#include "attnext/attnext.h"
#include "bindings/dlpack.h"

namespace attnext::bindings {

constexpr int kMaxAxes = 4;

// What an argument may hold. Integers of other widths are converted; nothing else is.
enum class Role { kData, kFloat, kBool, kInteger };

// An array argument, and what keeps its memory alive. dtype is ATTNEXT_ABSENT where it was not
// given.
struct Array {
  attnext_tensor tensor{};  // axes in the caller's order
  py::object
      source;  // the caller's array, or our converted copy: results of its kind take its type
  BorrowedTensor borrowed;  // holds the memory unless source is a NumPy array
  bool is_numpy = true;
  bool is_read_only = false;

  bool is_present() const { return tensor.dtype != ATTNEXT_ABSENT; }
};

// `value` is a NumPy array, has __dlpack__, or, unless its role is kData, a number or a list of
// them.
Array import_array(py::handle value, const char* name, Role role);

// Likewise, of the library that q is of, or of NumPy where `may_be_numpy`.
Array import_beside(const Array& q, py::handle value, const char* name, Role role,
                    bool may_be_numpy);

bool is_number(py::handle value);
std::string shape_text(const attnext_tensor& tensor);
int64_t num_elements(const attnext_tensor& tensor);
int item_size(int32_t dtype);

// An element of an integer tensor with one axis.
int64_t integer_at(const attnext_tensor& tensor, int64_t index);

// Whether the bytes spanned by two tensors have any in common.
bool overlaps(const attnext_tensor& a, const attnext_tensor& b);

// A row-major tensor without memory.
attnext_tensor make_tensor(const int64_t* shape, int ndim, int32_t dtype);

// A result in the making: uninitialised row-major memory that becomes an array of `like`'s library.
class Output {
 public:
  Output() = default;
  Output(const Array& like, const attnext_tensor& shape_and_dtype);
  attnext_tensor tensor{};  // absent: a result that was not asked for
  py::object finish() const;

 private:
  py::object like_;
  py::object result_;  // an ndarray, or a ResultTensor
};

}  // namespace attnext::bindings
