// How a failure reaches Python: which exception, and its message composed from parts.
#pragma once

#include <pybind11/pybind11.h>

#include <sstream>
#include <string>
#include <utility>

#include "attnext/attnext.h"

namespace attnext::bindings {

namespace py = pybind11;

// A call that cannot be served: `message` speaks of an argument, and does not know which function
// it was given to.
struct Refusal {
  PyObject* exception;
  std::string message;
};

template <class... Parts>
[[noreturn]] void raise(PyObject* exception, const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw Refusal{exception, message.str()};
}

// `pass` as Python calls it: where it refuses, an exception whose message starts with `function`,
// the name of what the user called.
template <class Result, class... Arguments>
auto speaking_as(const char* function, Result (*pass)(Arguments...)) {
  return [function, pass](Arguments... arguments) -> Result {
    try {
      return pass(std::forward<Arguments>(arguments)...);
    } catch (const Refusal& refusal) {
      PyErr_SetString(refusal.exception, (function + (": " + refusal.message)).c_str());
      throw py::error_already_set();
    }
  };
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

// The message of the last failed call without its function, about the argument as Python calls it:
// "attention: scale_per_head must .." becomes "scale must ..".
std::string last_error_in_python();

// Runs a function of the C interface without the GIL; nothing in `pass` may touch Python.
template <class Pass>
void run(Pass pass) {
  attnext_status status;
  {
    py::gil_scoped_release release;
    status = pass();
  }
  if (status != ATTNEXT_OK) raise(exception_of(status), last_error_in_python());
}

inline const char* type_name(py::handle value) { return Py_TYPE(value.ptr())->tp_name; }

}  // namespace attnext::bindings
