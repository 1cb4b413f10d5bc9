// How arrays of other libraries come in: through DLPack, in C where a library offers that.
#include <utility>

#include "bindings/asking.h"
#include "bindings/imports.h"

namespace attnext::bindings {
namespace {

// A flag or a method's answer, of libraries that have it.
bool says(py::handle value, const char* flag) {
  const py::object answer = py::getattr(value, flag, py::none());
  return py::cast<bool>(py::bool_(PyCallable_Check(answer.ptr()) ? answer() : answer));
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

// Fills in where the array is and what it lends. An array that is not where it has to be is not
// asked for its memory: its library may know nothing of a stream of another device. What its
// library's own table refuses is asked again by the protocol, which says why.
void borrow(py::handle value, const char* name, const Place* beside, Array& array) {
  array.borrowed = BorrowedTensor::on_host(array.source);
  if (array.borrowed) return;
  array.place = place_of(value, name);
  // Its library could not order it by a stream of another device.
  if (beside) require_same_place(*beside, array.place, name);
  if (array.place.is_cuda())
    find_stream(value, beside, array.place);
  else if (py::hasattr(value, "block_until_ready"))
    value.attr("block_until_ready")();
  array.borrowed = ask(value, name, [&] { return borrow_at(array.place, array.source); });
}

}  // namespace

Array from_dlpack(py::handle value, const char* name, Role role, const Place* beside) {
  if (says(value, "requires_grad"))
    raise(PyExc_TypeError, name,
          " requires grad, which would be lost here; use attnext.torch, or pass ", name,
          ".detach()");
  Array result;
  result.is_numpy = false;
  // DLPack exports the memory of a lazily negated tensor without the sign.
  result.source = says(value, "is_neg") ? py::object(value.attr("resolve_neg")())
                                        : py::reinterpret_borrow<py::object>(value);
  borrow(value, name, beside, result);
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

}  // namespace attnext::bindings
