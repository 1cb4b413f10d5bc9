// How a result is made in the caller's own library.
#include "bindings/outputs.h"

#include <pybind11/stl.h>

#include <cstring>
#include <vector>

namespace attnext::bindings {
namespace {

const char* dtype_name(int32_t dtype) {
  switch (dtype) {
    case ATTNEXT_FLOAT64:
      return "float64";
    case ATTNEXT_FLOAT32:
      return "float32";
    case ATTNEXT_FLOAT16:
      return "float16";
    default:
      return "bfloat16";
  }
}

// Our memory as an array of `like`'s library; as it is where that is none we know: the caller takes
// it through DLPack, as the arguments were given.
py::object hand_over(const ResultTensor& ours, const py::object& like) {
  if (py::object taken = ours.taken_by(like)) return taken;
  const py::object result = py::cast(ours);
  py::object library;
  try {
    library = libraries().attr("namespace")(like);
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_TypeError)) throw;
    return result;
  }
  return library.attr("from_dlpack")(result);
}

// Uninitialised; of the dtype of `like`, if it has that one, else of float64 or float32. Large ones
// are made of memory that is kept when they die: a NumPy array of its own would often be faulted in
// page by page, which takes as long as a tenth of a backward pass.
py::array numpy_array(const attnext_tensor& tensor, py::handle like, bool has_its_dtype) {
  constexpr int64_t kLeastKept = 64 << 10;
  const py::dtype dtype = has_its_dtype ? py::reinterpret_borrow<py::array>(like).dtype()
                          : tensor.dtype == ATTNEXT_FLOAT64 ? py::dtype::of<double>()
                                                            : py::dtype::of<float>();
  py::array::ShapeContainer shape(tensor.shape, tensor.shape + tensor.ndim);
  const int64_t bytes = num_elements(tensor) * dtype.itemsize();
  if (bytes < kLeastKept) return {dtype, std::move(shape)};
  const py::capsule memory(host_memory(static_cast<size_t>(bytes)), attnext_host_free);
  return {dtype, std::move(shape), memory.get_pointer(), memory};
}

// The bytes of a result of like's dtype: NumPy's own exchange knows no bfloat16.
py::array copied_to_numpy(const ResultTensor& result, const attnext_tensor& tensor,
                          py::handle like) {
  const ResultTensor host = result.copied_to({kDLCPU, 0});
  py::array array = numpy_array(tensor, like, true);
  std::memcpy(array.mutable_data(), host.data(), static_cast<size_t>(array.nbytes()));
  return array;
}

}  // namespace

// Memory of q's library, whose allocator and streams know it, or ours where it has no `empty` that
// may be written to (JAX).
void Output::allocate_on_device(const Array& q, int32_t backend) {
  is_on_device_ = true;
  const py::tuple shape(py::cast(std::vector<int64_t>(tensor.shape, tensor.shape + tensor.ndim)));
  theirs_ = libraries().attr("empty_beside")(q.source, shape, dtype_name(tensor.dtype));
  if (theirs_.is_none()) {
    ours_.emplace(tensor, backend == ATTNEXT_AUTO ? ATTNEXT_CUDA : backend, q.place.device);
    tensor.data = ours_->data();
    return;
  }
  borrowed_ = borrow_at(q.place, theirs_);
  tensor.data = static_cast<char*>((*borrowed_).data) + (*borrowed_).byte_offset;
}

void Output::allocate_on_host(const Array& like) {
  if (!like.is_numpy) {
    ours_.emplace(tensor);
    tensor.data = ours_->data();
    return;
  }
  py::array array = numpy_array(tensor, like_, tensor.dtype == like.tensor.dtype);
  tensor.data = array.mutable_data();
  theirs_ = std::move(array);
}

Output::Output(const Array& like, const attnext_tensor& shape_and_dtype, const Array& q,
               int32_t backend)
    : tensor(shape_and_dtype), like_(like.source), is_like_numpy_(like.is_numpy) {
  if (q.place.is_cuda())
    allocate_on_device(q, backend);
  else
    allocate_on_host(like);
}

py::object Output::finish() const {
  if (tensor.dtype == ATTNEXT_ABSENT) return py::none();
  if (is_on_device_ && is_like_numpy_) {  // of an option that was given in host memory
    if (ours_) return copied_to_numpy(*ours_, tensor, like_);
    const py::object host = libraries().attr("to_host")(theirs_);
    return libraries().attr("to_numpy")(host).attr("astype")(like_.attr("dtype"));
  }
  return ours_ ? hand_over(*ours_, like_) : theirs_;
}

}  // namespace attnext::bindings
