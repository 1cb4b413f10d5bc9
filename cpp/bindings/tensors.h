// What can be said of a tensor of the C interface by itself: its size, its text, what it covers.
#pragma once

#include <cstdint>
#include <string>

#include "attnext/attnext.h"

namespace attnext::bindings {

constexpr int kMaxAxes = 4;

// As Python writes a shape. NumPy itself refuses more axes than 64, so the text is always short.
template <class Axes>
std::string axes_text(const Axes* shape, int64_t ndim) {
  std::string text = "(";
  for (int64_t axis = 0; axis < ndim; ++axis)
    text += (axis ? ", " : "") + std::to_string(shape[axis]);
  return text + (ndim == 1 ? ",)" : ")");
}

// A row-major tensor without memory.
attnext_tensor make_tensor(const int64_t* shape, int ndim, int32_t dtype);

std::string shape_text(const attnext_tensor& tensor);
int64_t num_elements(const attnext_tensor& tensor);
int item_size(int32_t dtype);

// An element of an integer tensor with one axis.
int64_t integer_at(const attnext_tensor& tensor, int64_t index);

// Whether the bytes spanned by two tensors have any in common.
bool overlaps(const attnext_tensor& a, const attnext_tensor& b);

}  // namespace attnext::bindings
