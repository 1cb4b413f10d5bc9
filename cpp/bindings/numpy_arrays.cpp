// How NumPy's arrays come in, and the numbers and lists that it makes arrays of.
#include <utility>

#include "bindings/imports.h"

namespace attnext::bindings {
namespace {

attnext_dtype numpy_dtype(const py::dtype& dtype) {
  const auto size = dtype.itemsize();
  switch (dtype.kind()) {
    case 'b':
      return ATTNEXT_BOOL;
    case 'i':
      return size == 8 ? ATTNEXT_INT64 : size == 4 ? ATTNEXT_INT32 : ATTNEXT_ABSENT;
    case 'f':
      if (size == 4) return ATTNEXT_FLOAT32;
      if (size == 2) return ATTNEXT_FLOAT16;
      return size == 8 ? ATTNEXT_FLOAT64 : ATTNEXT_ABSENT;
    case 'V':  // ml_dtypes registers its types with NumPy as void
      return py::cast<std::string>(dtype.attr("name")) == "bfloat16" ? ATTNEXT_BFLOAT16
                                                                     : ATTNEXT_ABSENT;
    default:
      return ATTNEXT_ABSENT;
  }
}

bool is_plain_memory(const py::array& array) {
  if (!(array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_)) return false;
  const py::ssize_t item = array.itemsize();
  for (py::ssize_t axis = 0; axis < array.ndim(); ++axis) {
    if (array.strides()[axis] % item != 0) return false;
  }
  return true;
}

py::array read_list(py::handle value, const char* name) {
  std::string reason;
  try {
    return py::module_::import("numpy").attr("asarray")(value);
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_ValueError)) throw;
    reason = py::cast<std::string>(py::str(error.value()));
  }
  raise(PyExc_ValueError, name, " must be numbers in lists of equal lengths, found ",
        type_name(value), ": ", reason);
}

}  // namespace

Array from_numpy(py::array array, const char* name, Role role) {
  const py::dtype dtype = array.dtype();
  const char order = dtype.byteorder();
  if (order != '=' && order != '|' && !py::cast<bool>(dtype.attr("isnative")))
    raise(PyExc_TypeError, name, " is not in this machine's byte order: its dtype is ",
          py::cast<std::string>(py::str(dtype)), "; use .astype(dtype.newbyteorder('='))");
  if (Py_TYPE(array.ptr()) != py::detail::npy_api::get().PyArray_Type_ &&
      py::hasattr(array, "mask"))
    raise(PyExc_TypeError, name, " is a masked array; use `mask=` or `bias=` for what it hides");
  const attnext_dtype code = numpy_dtype(dtype);
  if (!fits(code, role)) {
    if (role != Role::kInteger || (dtype.kind() != 'i' && dtype.kind() != 'u'))
      refuse_dtype(name, role, py::cast<std::string>(py::str(dtype)));
    return from_numpy(array.attr("astype")("int64"), name, role);
  }
  require_few_axes(name, array.shape(), array.ndim());
  if (!is_plain_memory(array)) return from_numpy(array.attr("copy")(), name, role);

  Array result;
  result.tensor.data = const_cast<void*>(array.data());
  result.tensor.ndim = static_cast<int32_t>(array.ndim());
  result.tensor.dtype = code;
  for (int axis = 0; axis < result.tensor.ndim; ++axis) {
    result.tensor.shape[axis] = array.shape()[axis];
    result.tensor.strides[axis] = array.strides()[axis] / array.itemsize();
  }
  result.is_read_only = !array.writeable();
  result.source = std::move(array);
  return result;
}

py::array array_of_numbers(py::handle value, const char* name, Role role) {
  py::array array = read_list(value, name);
  const bool is_whole = array.dtype().kind() == 'i' || array.dtype().kind() == 'u';
  if (role == Role::kFloat && is_whole) return array.attr("astype")("float64");
  if (role == Role::kInteger && array.size() == 0) return array.attr("astype")("int64");
  if (array.dtype().kind() == 'O') refuse_dtype(name, role, "a list of other things");
  return array;
}

}  // namespace attnext::bindings
