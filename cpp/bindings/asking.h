// How an array of an unknown library is asked: it may refuse in many ways.
#pragma once

#include <string>

#include "bindings/errors.h"

namespace attnext::bindings {

// Runs a step of the protocol. Libraries refuse in many ways what has no plain memory (tracers,
// sparse or deleted arrays).
template <class Step>
auto ask(py::handle value, const char* name, Step step) {
  std::string reason;
  try {
    return step();
  } catch (py::error_already_set& error) {
    if (error.matches(PyExc_MemoryError) || !error.matches(PyExc_Exception)) throw;
    reason = py::cast<std::string>(py::str(error.value()));
  } catch (const Refusal& refusal) {
    reason = refusal.message;
  }
  raise(PyExc_TypeError, name, " (", type_name(value), ") has no memory to be read: ", reason);
}

}  // namespace attnext::bindings
