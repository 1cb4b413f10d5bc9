// Where an array's memory is, and on which stream its library works there.
#include "bindings/places.h"

#include <dlpack/dlpack.h>

#include <algorithm>
#include <utility>

#include "bindings/asking.h"
#include "bindings/errors.h"

namespace attnext::bindings {
namespace {

struct Device {
  int kind, number;
};

// A context manager of Python, entered.
class Entered {
 public:
  explicit Entered(py::object context) : context_(std::move(context)) {
    context_.attr("__enter__")();
  }
  ~Entered() {
    try {
      context_.attr("__exit__")(py::none(), py::none(), py::none());
    } catch (py::error_already_set& error) {
      error.discard_as_unraisable("attnext");
    }
  }
  Entered(const Entered&) = delete;
  Entered& operator=(const Entered&) = delete;

 private:
  py::object context_;
};

Device device_of(py::handle value, const char* name) {
  const py::object answer = ask(value, name, [&] { return value.attr("__dlpack_device__")(); });
  try {
    if (py::isinstance<py::tuple>(answer) && py::len(answer) == 2)
      return {py::cast<int>(answer[py::int_(0)]), py::cast<int>(answer[py::int_(1)])};
  } catch (const py::cast_error&) {  // refused below, as what is no pair
  }
  raise(PyExc_TypeError, name, " (", type_name(value),
        ") must have a __dlpack_device__ of two integers, found ",
        py::cast<std::string>(py::repr(answer)));
}

}  // namespace

py::object libraries() {
  if (PyObject* known = PyImport_GetModule(py::str("attnext.libraries").ptr()))
    return py::reinterpret_steal<py::object>(known);
  return py::module_::import("attnext.libraries");
}

Place place_of(py::handle value, const char* name) {
  const auto [kind, number] = device_of(value, name);
  if (kind == kDLCPU || kind == kDLCUDAHost || kind == kDLROCMHost) return {};
  if (kind == kDLCUDA || kind == kDLCUDAManaged) return {ATTNEXT_CUDA_MEMORY, number};
  const char* place = kind == kDLROCM    ? "a ROCm device"
                      : kind == kDLMetal ? "a Metal device"
                                         : "a device";
  raise(PyExc_TypeError, name, " (", type_name(value), ") lives on ", place, " (DLPack device ",
        kind, ", number ", number,
        "), and attnext computes on CPUs and CUDA devices; copy it to host memory first, as with "
        ".cpu()");
}

void find_stream(py::handle value, const Place* beside, Place& place) {
  if (beside && beside->is_cuda()) {
    place.stream = beside->stream;
    place.has_stream = beside->has_stream;
    return;
  }
  const py::object stream = libraries().attr("cuda_stream")(value);
  place.has_stream = !stream.is_none();
  if (place.has_stream) place.stream = reinterpret_cast<void*>(py::cast<uintptr_t>(stream));
}

BorrowedTensor borrow_at(const Place& place, py::handle value) {
  if (!place.is_cuda()) return BorrowedTensor(value);
  const Entered current(libraries().attr("current_device")(value));
  // As the array API numbers streams: 1 is the legacy default one, 0 is ambiguous and forbidden.
  const auto stream = std::max<uintptr_t>(reinterpret_cast<uintptr_t>(place.stream), 1);
  return BorrowedTensor(value, py::int_(stream));
}

void require_same_place(const Place& q, const Place& found, const char* name, const char* what) {
  if (q.memory == found.memory && q.device == found.device) return;
  raise(PyExc_TypeError, name, " must be where q is, on ", place_text(q), ", found ", what, " in ",
        place_text(found));
}

std::string place_text(const Place& place) {
  return place.is_cuda() ? "cuda:" + std::to_string(place.device) : "host memory";
}

void wait_if_needed(const Place& place, int32_t backend) {
  if (!place.is_cuda() || place.has_stream) return;
  const int32_t device_backend = backend == ATTNEXT_AUTO ? ATTNEXT_CUDA : backend;
  run([&] {
    return attnext_device_copy(device_backend, place.device, place.stream, nullptr, nullptr, 0);
  });
}

}  // namespace attnext::bindings
