// How the caller's axes become the axes of the C interface, by strides alone.
#include "bindings/layout.h"

#include <utility>

#include "bindings/errors.h"

namespace attnext::bindings {
namespace {

const char* axes_of(Layout layout) {
  switch (layout) {
    case Layout::kBshd:
      return "2, 3 or 4 axes, (S, D), (S, H, D) or (B, S, H, D), for layout bshd";
    case Layout::kThd:
      return "3 axes, (total, H, D), for layout thd";
    default:
      return "2, 3 or 4 axes, (S, D), (H, S, D) or (B, H, S, D), for layout bhsd";
  }
}

attnext_tensor swap_middle_axes(attnext_tensor tensor) {
  std::swap(tensor.shape[1], tensor.shape[2]);
  std::swap(tensor.strides[1], tensor.strides[2]);
  return tensor;
}

}  // namespace

Layout parse_layout(py::handle value) {
  if (PyUnicode_Check(value.ptr())) {
    if (PyUnicode_CompareWithASCIIString(value.ptr(), "bhsd") == 0) return Layout::kBhsd;
    if (PyUnicode_CompareWithASCIIString(value.ptr(), "bshd") == 0) return Layout::kBshd;
    if (PyUnicode_CompareWithASCIIString(value.ptr(), "thd") == 0) return Layout::kThd;
  }
  raise(PyExc_ValueError, "layout must be 'bhsd', 'bshd' or 'thd', found ",
        py::cast<std::string>(py::repr(value)));
}

void require_rank(const Array& array, const char* name, Layout layout) {
  const int ndim = array.tensor.ndim;
  const bool fits = layout == Layout::kThd ? ndim == 3 : ndim >= 2 && ndim <= 4;
  if (!fits)
    raise(PyExc_ValueError, name, " must have ", axes_of(layout), ", found shape ",
          shape_text(array.tensor));
}

void require_same_rank(const Array& array, const char* name, const Array& q) {
  if (array.tensor.ndim != q.tensor.ndim)
    raise(PyExc_ValueError, name, " must have as many axes as q, ", q.tensor.ndim, ", found shape ",
          shape_text(array.tensor));
}

attnext_tensor with_leading_axes(attnext_tensor tensor, int ndim) {
  const int missing = ndim - tensor.ndim;
  for (int axis = ndim - 1; axis >= 0; --axis) {
    tensor.shape[axis] = axis < missing ? 1 : tensor.shape[axis - missing];
    tensor.strides[axis] = axis < missing ? 0 : tensor.strides[axis - missing];
  }
  tensor.ndim = ndim;
  return tensor;
}

attnext_tensor without_leading_axes(attnext_tensor tensor, int ndim) {
  const int extra = tensor.ndim - ndim;
  for (int axis = 0; axis < ndim; ++axis) {
    tensor.shape[axis] = tensor.shape[axis + extra];
    tensor.strides[axis] = tensor.strides[axis + extra];
  }
  tensor.ndim = ndim;
  return tensor;
}

attnext_tensor to_canonical(const attnext_tensor& tensor, Layout layout) {
  const attnext_tensor full = with_leading_axes(tensor, 4);
  // Without a head axis both orders are the same.
  return layout == Layout::kBhsd || tensor.ndim == 2 ? full : swap_middle_axes(full);
}

attnext_tensor pages_to_canonical(const attnext_tensor& pages) { return swap_middle_axes(pages); }

}  // namespace attnext::bindings
