// How a failure reaches Python: which exception, and its message composed from parts.
#pragma once

#include <pybind11/pybind11.h>

#include <sstream>

#include "attnext/attnext.h"

namespace attnext::bindings {

namespace py = pybind11;

template <class... Parts>
[[noreturn]] void raise(PyObject* exception, const Parts&... parts) {
  std::ostringstream message;
  message << "attention: ";
  (message << ... << parts);
  PyErr_SetString(exception, message.str().c_str());
  throw py::error_already_set();
}

inline PyObject* exception_of(attnext_status status) {
  switch (status) {
    case ATTNEXT_VALUE_ERROR:
      return PyExc_ValueError;
    case ATTNEXT_TYPE_ERROR:
      return PyExc_TypeError;
    case ATTNEXT_NOT_IMPLEMENTED:
      return PyExc_NotImplementedError;
    case ATTNEXT_OUT_OF_MEMORY:
      return PyExc_MemoryError;
    default:
      return PyExc_RuntimeError;
  }
}

// Runs a function of the C interface without the GIL; nothing in `pass` may touch Python.
template <class Pass>
void run(Pass pass) {
  attnext_status status;
  {
    py::gil_scoped_release release;
    status = pass();
  }
  if (status == ATTNEXT_OK) return;
  PyErr_SetString(exception_of(status), attnext_last_error());
  throw py::error_already_set();
}

inline const char* type_name(py::handle value) { return Py_TYPE(value.ptr())->tp_name; }

}  // namespace attnext::bindings
