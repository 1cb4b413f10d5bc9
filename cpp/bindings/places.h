// Where an array's memory is, and on which stream its library works there.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "attnext/attnext.h"
#include "bindings/dlpack.h"

namespace attnext::bindings {

// A library on CUDA without a stream of its own (JAX) is given the legacy default stream, and
// results when they are complete.
struct Place {
  int32_t memory = ATTNEXT_HOST_MEMORY, device = 0;
  void* stream = nullptr;
  bool has_stream = true;

  bool is_cuda() const { return memory == ATTNEXT_CUDA_MEMORY; }
};

// attnext.libraries, which knows the libraries by name.
py::object libraries();

// Of an array with __dlpack_device__, without a stream; refuses a device that nothing here computes
// on.
Place place_of(py::handle value, const char* name);

// The stream of an array's place on CUDA: that of `beside`, where that is a place on CUDA too, or
// the one that the array's library works on now.
void find_stream(py::handle value, const Place* beside, Place& place);

// Takes over the memory of an array at `place`, where the place's stream sees what was written.
BorrowedTensor borrow_at(const Place& place, py::handle value);

// Refuses an argument, `what` it is, that is elsewhere than q.
void require_same_place(const Place& q, const Place& found, const char* name,
                        const char* what = "an array");

// "cuda:0", "host memory".
std::string place_text(const Place& place);

// Results for a library on CUDA without a stream are complete when it gets them.
void wait_if_needed(const Place& place, int32_t backend);

}  // namespace attnext::bindings
