// How an array argument is unpacked, and a result is made in the caller's own library.
#include "bindings/arrays.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <vector>

#include "bindings/errors.h"

namespace attnext::bindings {
namespace {

const char* allowed_dtypes(Role role) {
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

// Whether an array of this type is taken as it is.
bool fits(attnext_dtype code, Role role) {
  const bool is_integer = code == ATTNEXT_INT32 || code == ATTNEXT_INT64;
  return code != ATTNEXT_ABSENT && (role != Role::kInteger || is_integer);
}

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

// NumPy itself refuses more axes than 64, so the text is always short.
template <class Axes>
std::string axes_text(const Axes* shape, int64_t ndim) {
  std::string text = "(";
  for (int64_t axis = 0; axis < ndim; ++axis)
    text += (axis ? ", " : "") + std::to_string(shape[axis]);
  return text + (ndim == 1 ? ",)" : ")");
}

template <class Axes>
void require_few_axes(const char* name, const Axes* shape, int64_t ndim) {
  if (ndim > kMaxAxes)
    raise(PyExc_ValueError, name, " must have at most 4 axes, found shape ",
          axes_text(shape, ndim));
}

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

// A flag or a method's answer, of libraries that have it.
bool says(py::handle value, const char* flag) {
  const py::object answer = py::getattr(value, flag, py::none());
  return py::cast<bool>(py::bool_(PyCallable_Check(answer.ptr()) ? answer() : answer));
}

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

struct Device {
  int kind, number;
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

py::object libraries() { return py::module_::import("attnext.libraries"); }

// The stream its library works on now; asked once a call, of q.
void find_stream(py::handle value, Place& place) {
  const py::object stream = libraries().attr("cuda_stream")(value);
  place.has_stream = !stream.is_none();
  if (place.has_stream) place.stream = reinterpret_cast<void*>(py::cast<uintptr_t>(stream));
}

// As the array API numbers streams: 1 is the legacy default one, 0 is ambiguous and forbidden.
py::object dlpack_stream(const Place& place) {
  if (!place.is_cuda()) return py::none();
  return py::int_(std::max<uintptr_t>(reinterpret_cast<uintptr_t>(place.stream), 1));
}

void require_readable_memory(const DLTensor& theirs, py::handle value, const char* name) {
  int64_t elements = 1;
  for (int axis = 0; axis < theirs.ndim; ++axis) elements *= theirs.shape[axis];
  if (elements == 0) return;
  if (!theirs.data)
    raise(PyExc_TypeError, name, " (", type_name(value), ") has a shape but no memory");
  const auto address = reinterpret_cast<uintptr_t>(theirs.data) + theirs.byte_offset;
  if (address % (theirs.dtype.bits / 8) != 0)
    raise(PyExc_ValueError, name, " is not aligned to its element size");
}

std::string dtype_text(const DLDataType& type) {
  const char* kinds[] = {"int", "uint", "float", "opaque", "bfloat", "complex", "bool"};
  const std::string kind =
      type.code < 7 ? kinds[type.code] : "DLPack type " + std::to_string(type.code) + "/";
  return kind + std::to_string(type.bits);
}

void describe(const DLTensor& theirs, attnext_tensor& tensor) {
  int64_t compact = 1;
  tensor.ndim = theirs.ndim;
  for (int axis = theirs.ndim - 1; axis >= 0; --axis) {
    tensor.shape[axis] = theirs.shape[axis];
    tensor.strides[axis] = theirs.strides ? theirs.strides[axis] : compact;
    compact *= theirs.shape[axis];
  }
  if (theirs.data) tensor.data = static_cast<char*>(theirs.data) + theirs.byte_offset;
}

Array from_dlpack(py::handle value, const char* name, Role role, const Place* beside) {
  if (says(value, "requires_grad"))
    raise(PyExc_TypeError, name,
          " requires grad, which would be lost here; use attnext.torch, or pass ", name,
          ".detach()");
  Array result;
  result.is_numpy = false;
  result.source = py::reinterpret_borrow<py::object>(value);
  result.place = place_of(value, name);
  if (result.place.is_cuda()) {
    if (beside && beside->is_cuda())
      result.place = {ATTNEXT_CUDA_MEMORY, result.place.device, beside->stream, beside->has_stream};
    else
      find_stream(value, result.place);
  }
  // DLPack exports the memory of a lazily negated tensor without the sign.
  if (py::hasattr(value, "is_neg") && says(value, "is_neg"))
    result.source = value.attr("resolve_neg")();
  if (!result.place.is_cuda() && py::hasattr(value, "block_until_ready"))
    value.attr("block_until_ready")();
  result.borrowed =
      ask(value, name, [&] { return BorrowedTensor(result.source, dlpack_stream(result.place)); });

  const DLTensor& theirs = *result.borrowed;
  const attnext_dtype code = dlpack_dtype(theirs.dtype);
  if (!fits(code, role)) {
    if (role != Role::kInteger || theirs.dtype.code > kDLUInt)
      refuse_dtype(name, role, dtype_text(theirs.dtype));
    const py::object numpy = py::module_::import("numpy");
    return from_numpy(numpy.attr("from_dlpack")(value).attr("astype")("int64"), name, role);
  }
  require_few_axes(name, theirs.shape, theirs.ndim);
  require_readable_memory(theirs, value, name);
  describe(theirs, result.tensor);
  result.tensor.dtype = code;
  result.is_read_only = result.borrowed.is_read_only();
  return result;
}

// An AdditiveScore is a tuple as well, and no numbers.
bool is_list(py::handle value) {
  return (py::isinstance<py::list>(value) || py::isinstance<py::tuple>(value)) &&
         !py::hasattr(value, "weight");
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

py::array array_of_numbers(py::handle value, const char* name, Role role) {
  py::array array = read_list(value, name);
  const bool is_whole = array.dtype().kind() == 'i' || array.dtype().kind() == 'u';
  if (role == Role::kFloat && is_whole) return array.attr("astype")("float64");
  if (role == Role::kInteger && array.size() == 0) return array.attr("astype")("int64");
  if (array.dtype().kind() == 'O') refuse_dtype(name, role, "a list of other things");
  return array;
}

// Of a class deep in a library: what the library is called.
std::string library_of(py::handle value) {
  const py::tuple bases = py::type::of(value).attr("__mro__");
  const py::handle root = bases[bases.size() > 1 ? bases.size() - 2 : 0];
  const auto module = py::cast<std::string>(py::str(root.attr("__module__")));
  const std::string library = module.substr(0, module.find('.'));
  return library == "jaxlib" ? "jax" : library;
}

}  // namespace

bool is_number(py::handle value) {
  if (PyFloat_Check(value.ptr()) || PyLong_Check(value.ptr())) return true;
  return PyNumber_Check(value.ptr()) && !py::isinstance<py::array>(value) &&
         !py::hasattr(value, "__dlpack__");
}

std::string place_text(const Place& place) {
  return place.is_cuda() ? "cuda:" + std::to_string(place.device) : "host memory";
}

Array import_array(py::handle value, const char* name, Role role, const Place* beside) {
  if (py::isinstance<py::array>(value))
    return from_numpy(py::reinterpret_borrow<py::array>(value), name, role);
  if (py::hasattr(value, "__dlpack__")) return from_dlpack(value, name, role, beside);
  if (role != Role::kData && (is_list(value) || is_number(value)))
    return from_numpy(array_of_numbers(value, name, role), name, role);
  raise(PyExc_TypeError, name, " must be an array of NumPy or one with __dlpack__, found ",
        type_name(value));
}

Array import_small(py::handle value, const char* name, Role role) {
  const bool is_foreign = !py::isinstance<py::array>(value) && py::hasattr(value, "__dlpack__");
  const Place place = is_foreign ? place_of(value, name) : Place{};
  if (!place.is_cuda()) return import_array(value, name, role);
  const py::object copy = ask(value, name, [&] { return libraries().attr("to_host")(value); });
  Array array = import_array(copy, name, role);
  array.host_copy = array.is_numpy ? array.source : copy;
  array.source = py::reinterpret_borrow<py::object>(value);
  array.is_numpy = false;
  array.place = place;
  return array;
}

namespace {

void require_same_place(const Array& q, const Array& array, const char* name, Kind kind) {
  const bool may_differ = kind == Kind::kSmall && !array.place.is_cuda();
  const bool is_same = q.place.memory == array.place.memory && q.place.device == array.place.device;
  if (is_same || may_differ) return;
  raise(PyExc_TypeError, name, " must be where q is, on ", place_text(q.place), ", found ",
        array.is_numpy ? "a NumPy array" : "an array", " in ", place_text(array.place));
}

}  // namespace

Array import_beside(const Array& q, py::handle value, const char* name, Role role, Kind kind) {
  Array array = kind == Kind::kSmall ? import_small(value, name, role)
                                     : import_array(value, name, role, &q.place);
  const bool is_ours = array.is_numpy ? q.is_numpy || kind != Kind::kTensor
                                      : Py_TYPE(value.ptr()) == Py_TYPE(q.source.ptr()) ||
                                            py::isinstance<ResultTensor>(value) ||
                                            library_of(value) == library_of(q.source);
  if (!is_ours)
    raise(PyExc_TypeError, name, " must be of q's library ", library_of(q.source), ", found ",
          library_of(value));
  require_same_place(q, array, name, kind);
  return array;
}

std::string shape_text(const attnext_tensor& tensor) {
  return axes_text(tensor.shape, tensor.ndim);
}

int64_t num_elements(const attnext_tensor& tensor) {
  int64_t count = 1;
  for (int axis = 0; axis < tensor.ndim; ++axis) count *= tensor.shape[axis];
  return count;
}

int item_size(int32_t dtype) {
  switch (dtype) {
    case ATTNEXT_FLOAT64:
    case ATTNEXT_INT64:
      return 8;
    case ATTNEXT_FLOAT32:
    case ATTNEXT_INT32:
      return 4;
    case ATTNEXT_FLOAT16:
    case ATTNEXT_BFLOAT16:
      return 2;
    default:
      return 1;
  }
}

int64_t integer_at(const attnext_tensor& tensor, int64_t index) {
  const int64_t offset = index * tensor.strides[0];
  if (tensor.dtype == ATTNEXT_INT32) return static_cast<const int32_t*>(tensor.data)[offset];
  return static_cast<const int64_t*>(tensor.data)[offset];
}

bool overlaps(const attnext_tensor& a, const attnext_tensor& b) {
  if (num_elements(a) == 0 || num_elements(b) == 0) return false;
  const auto range = [](const attnext_tensor& t) {
    int64_t low = 0, high = 1;  // in elements from data
    for (int axis = 0; axis < t.ndim; ++axis) {
      const int64_t reach = t.strides[axis] * (t.shape[axis] - 1);
      (reach < 0 ? low : high) += reach;
    }
    const auto base = reinterpret_cast<intptr_t>(t.data);
    return std::pair(base + low * item_size(t.dtype), base + high * item_size(t.dtype));
  };
  const auto [a_begin, a_end] = range(a);
  const auto [b_begin, b_end] = range(b);
  return a_begin < b_end && b_begin < a_end;
}

void wait_if_needed(const Place& place, int32_t backend) {
  if (!place.is_cuda() || place.has_stream) return;
  const int32_t device_backend = backend == ATTNEXT_AUTO ? ATTNEXT_CUDA : backend;
  run([&] {
    return attnext_device_copy(device_backend, place.device, place.stream, nullptr, nullptr, 0);
  });
}

attnext_tensor make_tensor(const int64_t* shape, int ndim, int32_t dtype) {
  attnext_tensor tensor{};
  tensor.ndim = ndim;
  tensor.dtype = dtype;
  int64_t stride = 1;
  for (int axis = ndim - 1; axis >= 0; --axis) {
    tensor.shape[axis] = shape[axis];
    tensor.strides[axis] = stride;
    stride *= std::max<int64_t>(shape[axis], 1);  // an empty tensor must not seem to overlap itself
  }
  return tensor;
}

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

// Memory of q's library, whose allocator and streams know it, or ours where it has no `empty` that
// may be written to (JAX).
void Output::allocate_on_device(const Array& q, int32_t backend) {
  is_on_device_ = true;
  const py::tuple shape(py::cast(std::vector<int64_t>(tensor.shape, tensor.shape + tensor.ndim)));
  const py::object made =
      libraries().attr("empty_beside")(q.source, shape, dtype_name(tensor.dtype));
  if (made.is_none()) {
    const int64_t num_bytes = num_elements(tensor) * item_size(tensor.dtype);
    ResultTensor result(tensor, num_bytes, backend == ATTNEXT_AUTO ? ATTNEXT_CUDA : backend,
                        q.place.device);
    tensor.data = result.data();
    result_ = py::cast(std::move(result));
    return;
  }
  borrowed_ = BorrowedTensor(made, dlpack_stream(q.place));
  tensor.data = static_cast<char*>((*borrowed_).data) + (*borrowed_).byte_offset;
  result_ = made;
}

Output::Output(const Array& like, const attnext_tensor& shape_and_dtype, const Array& q,
               int32_t backend)
    : tensor(shape_and_dtype), like_(like.source), is_like_numpy_(like.is_numpy) {
  if (q.place.is_cuda()) {
    allocate_on_device(q, backend);
    return;
  }
  if (!like.is_numpy) {
    ResultTensor result(tensor, num_elements(tensor) * item_size(tensor.dtype));
    tensor.data = result.data();
    result_ = py::cast(std::move(result));
    return;
  }
  const py::dtype dtype = tensor.dtype == like.tensor.dtype
                              ? py::reinterpret_borrow<py::array>(like_).dtype()
                          : tensor.dtype == ATTNEXT_FLOAT64 ? py::dtype::of<double>()
                                                            : py::dtype::of<float>();
  py::array array(dtype, py::array::ShapeContainer(tensor.shape, tensor.shape + tensor.ndim));
  tensor.data = array.mutable_data();
  result_ = std::move(array);
}

py::object Output::finish() const {
  if (!result_) return py::none();
  if (py::isinstance<py::array>(result_)) return result_;
  if (is_on_device_ && is_like_numpy_) {  // of an option that was given in host memory
    const py::object host = libraries().attr("to_host")(result_);
    return py::module_::import("numpy").attr("asarray")(host).attr("astype")(like_.attr("dtype"));
  }
  if (!py::isinstance<ResultTensor>(result_)) return result_;
  const py::object find = py::module_::import("array_api_compat").attr("array_namespace");
  py::object library;
  try {
    library = find(like_);
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_TypeError)) throw;
    return result_;  // of no known library: the caller takes it through DLPack, as it was given
  }
  return library.attr("from_dlpack")(result_);
}

}  // namespace attnext::bindings
