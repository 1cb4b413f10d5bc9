// How an array argument is unpacked, and a result is made in the caller's own library.
#pragma once

#include <pybind11/numpy.h>

#include <string>

#include "attnext/attnext.h"
#include "bindings/dlpack.h"

namespace attnext::bindings {

constexpr int kMaxAxes = 4;

// Where an array's memory is. A library on CUDA without a stream of its own (JAX) is given the
// legacy default stream, and results when they are complete.
struct Place {
  int32_t memory = ATTNEXT_HOST_MEMORY, device = 0;
  void* stream = nullptr;
  bool has_stream = true;

  bool is_cuda() const { return memory == ATTNEXT_CUDA_MEMORY; }
};

// What an argument may hold. Integers of other widths are converted; nothing else is.
enum class Role { kData, kFloat, kBool, kInteger };

// Whose an argument beside q is: of q's library and place; the same, or NumPy's where q is in host
// memory; or a small array that is read in host memory, brought there where it is not.
enum class Kind { kTensor, kPairs, kSmall };

// An array argument, and what keeps its memory alive. dtype is ATTNEXT_ABSENT where it was not
// given.
struct Array {
  attnext_tensor tensor{};  // axes in the caller's order
  py::object
      source;  // the caller's array, or our converted copy: results of its kind take its type
  BorrowedTensor borrowed;  // holds the memory unless source is a NumPy array
  py::object host_copy;     // holds the memory of a small array that `source` has on a device
  Place place;              // of `source`
  bool is_numpy = true;
  bool is_read_only = false;

  bool is_present() const { return tensor.dtype != ATTNEXT_ABSENT; }
};

// `value` is a NumPy array, has __dlpack__, or, unless its role is kData, a number or a list of
// them. Arrays on a device are ordered by the stream of `beside`, or of their own library.
Array import_array(py::handle value, const char* name, Role role, const Place* beside = nullptr);

// Likewise, of the library that q is of and in the same place, up to what `kind` allows.
Array import_beside(const Array& q, py::handle value, const char* name, Role role, Kind kind);

// Likewise in host memory, wherever it is given.
Array import_small(py::handle value, const char* name, Role role);

// "cuda:0", "host memory".
std::string place_text(const Place& place);

bool is_number(py::handle value);
std::string shape_text(const attnext_tensor& tensor);
int64_t num_elements(const attnext_tensor& tensor);
int item_size(int32_t dtype);

// An element of an integer tensor with one axis.
int64_t integer_at(const attnext_tensor& tensor, int64_t index);

// Whether the bytes spanned by two tensors have any in common.
bool overlaps(const attnext_tensor& a, const attnext_tensor& b);

// Results for a library on CUDA without a stream are complete when it gets them.
void wait_if_needed(const Place& place, int32_t backend);

// A row-major tensor without memory.
attnext_tensor make_tensor(const int64_t* shape, int ndim, int32_t dtype);

// A result in the making: uninitialised row-major memory, where q lies, that becomes an array of
// `like`'s library and place.
class Output {
 public:
  Output() = default;
  Output(const Array& like, const attnext_tensor& shape_and_dtype, const Array& q, int32_t backend);
  attnext_tensor tensor{};  // absent: a result that was not asked for
  py::object finish() const;

 private:
  void allocate_on_device(const Array& q, int32_t backend);

  py::object like_;
  bool is_like_numpy_ = true, is_on_device_ = false;
  py::object result_;        // an ndarray, an array of like's library, or a ResultTensor
  BorrowedTensor borrowed_;  // the memory of an array of like's library
};

}  // namespace attnext::bindings
