// What an array that is read may hold, and how what it holds is refused.
#pragma once

#include "bindings/arrays.h"
#include "bindings/errors.h"

namespace attnext::bindings {

Array from_numpy(py::array array, const char* name, Role role);

py::array array_of_numbers(py::handle value, const char* name, Role role);

Array from_dlpack(py::handle value, const char* name, Role role, const Place* beside);

// Whether an array of this type is taken as it is.
inline bool fits(attnext_dtype code, Role role) {
  const bool is_integer = code == ATTNEXT_INT32 || code == ATTNEXT_INT64;
  return code != ATTNEXT_ABSENT && (role != Role::kInteger || is_integer);
}

inline const char* allowed_dtypes(Role role) {
  switch (role) {
    case Role::kBool:
      return "bool";
    case Role::kInteger:
      return "of an integer type";
    default:
      return "float64, float32, float16 or bfloat16";
  }
}

template <class Found>
[[noreturn]] void refuse_dtype(const char* name, Role role, const Found& found) {
  raise(PyExc_TypeError, name, " must be ", allowed_dtypes(role), ", found ", found);
}

template <class Axes>
void require_few_axes(const char* name, const Axes* shape, int64_t ndim) {
  if (ndim > kMaxAxes)
    raise(PyExc_ValueError, name, " must have at most 4 axes, found shape ",
          axes_text(shape, ndim));
}

}  // namespace attnext::bindings
