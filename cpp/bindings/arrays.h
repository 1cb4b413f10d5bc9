// How an array argument is unpacked, whosever it is.
#pragma once

#include <pybind11/numpy.h>

#include <string>

#include "bindings/dlpack.h"
#include "bindings/places.h"
#include "bindings/tensors.h"

namespace attnext::bindings {

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

// Likewise in host memory, wherever it is given; on a device, that of `beside` only.
Array import_small(py::handle value, const char* name, Role role, const Place* beside = nullptr);

bool is_number(py::handle value);

}  // namespace attnext::bindings
