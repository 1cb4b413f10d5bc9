// What can be said of a tensor of the C interface by itself: its size, its text, what it covers.
#include "bindings/tensors.h"

#include <algorithm>
#include <utility>

namespace attnext::bindings {

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

}  // namespace attnext::bindings
