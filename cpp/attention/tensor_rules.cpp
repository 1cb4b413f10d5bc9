// What every tensor must satisfy by itself, whatever it is used for: layout, dtype, shape.
#include "attention/tensor_rules.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <vector>

#include "attention/elements.h"
#include "attention/error.h"

namespace attnext {
namespace {

// Far beyond memory, yet sums of positions, offsets and kOpen stay within 64 bits.
constexpr int64_t kMaxAxis = int64_t{1} << 48;

// Element counts and byte offsets are formed without further checks everywhere else. Empty axes
// count as one: the product of the others is formed all the same.
bool is_addressable(const TensorView& t) {
  int64_t count = 1, reach = 1;
  bool overflows = false;
  for (int axis = 0; axis < t.ndim; ++axis) {
    const int64_t last = std::max<int64_t>(t.shape[axis] - 1, 0);
    int64_t step = 0, distance = 0;
    overflows |= __builtin_mul_overflow(count, last + 1, &count);
    overflows |= __builtin_sub_overflow(int64_t{0}, t.strides[axis], &step);
    overflows |= __builtin_mul_overflow(std::max(step, t.strides[axis]), last, &distance);
    overflows |= __builtin_add_overflow(reach, distance, &reach);
  }
  const int64_t size = kDTypes[t.dtype].size;
  int64_t bytes = 0;
  overflows |= __builtin_mul_overflow(count, size, &bytes);
  overflows |= __builtin_mul_overflow(reach, size, &bytes);
  return !overflows;
}

void check_layout(const char* name, const TensorView& t) {
  require(t.dtype > 0 && t.dtype < kNumDTypes, ErrorKind::kType, name,
          " must have a dtype code from 1 to ", kNumDTypes - 1, ", found ", t.dtype);
  require(t.ndim >= 0 && t.ndim <= 4, name, " must have 0 to 4 axes, found ", t.ndim);
  for (int axis = 0; axis < t.ndim; ++axis) {
    require(t.shape[axis] >= 0 && t.shape[axis] < kMaxAxis, name,
            " must have axes of at least 0 and less than 2^48, found ", shape_of(t));
  }
  require(is_addressable(t), name, " must be addressable with 64 bits, found shape ", shape_of(t),
          " and strides ", ShapeText{t.strides, t.ndim});
  if (num_elements(t) == 0) return;
  require(t.data != nullptr, name, " must have data, found a null pointer");
  const int size = kDTypes[t.dtype].size;
  require(reinterpret_cast<uintptr_t>(t.data) % size == 0, name, " must be aligned to its ", size,
          "-byte elements, found an address that is not");
}

}  // namespace

std::ostream& operator<<(std::ostream& out, const ShapeText& text) {
  out << "(";
  for (int axis = 0; axis < text.ndim; ++axis) out << (axis > 0 ? ", " : "") << text.shape[axis];
  return out << (text.ndim == 1 ? ",)" : ")");
}

std::ostream& operator<<(std::ostream& out, DType dtype) {
  return out << kDTypes[static_cast<int>(dtype)].name;
}

TensorView required_tensor(const char* name, const attnext_tensor* tensor) {
  require(tensor != nullptr && is_present(*tensor), name, " must be given, found none");
  check_layout(name, *tensor);
  return *tensor;
}

TensorView optional_tensor(const char* name, const attnext_tensor* tensor) {
  if (tensor == nullptr || !is_present(*tensor)) return {};
  return required_tensor(name, tensor);
}

void require_float(const char* name, const TensorView& t) {
  require(kDTypes[t.dtype].is_float, ErrorKind::kType, name,
          " must be float64, float32, float16 or bfloat16, found ", dtype_of(t));
}

void require_integer(const char* name, const TensorView& t) {
  require(dtype_of(t) == DType::kInt32 || dtype_of(t) == DType::kInt64, ErrorKind::kType, name,
          " must be int32 or int64, found ", dtype_of(t));
}

void require_bool(const char* name, const TensorView& t) {
  require(dtype_of(t) == DType::kBool, ErrorKind::kType, name,
          " must be bool (true: may attend), found ", dtype_of(t));
}

void require_dtype(const char* name, const TensorView& t, DType dtype, const char* owner) {
  require(dtype_of(t) == dtype, ErrorKind::kType, name, " must have ", owner, " ", dtype,
          ", found ", dtype_of(t));
}

void require_shape(const char* name, const TensorView& t, const char* axes,
                   std::initializer_list<int64_t> shape) {
  require(std::equal(shape.begin(), shape.end(), t.shape, t.shape + t.ndim), name,
          " must have shape ", axes, " = ",
          ShapeText{shape.begin(), static_cast<int>(shape.size())}, ", found ", shape_of(t));
}

void require_no_overlap(const char* name, const TensorView& t) {
  if (num_elements(t) == 0) return;
  std::vector<int> axes(static_cast<size_t>(t.ndim));
  std::iota(axes.begin(), axes.end(), 0);
  std::sort(axes.begin(), axes.end(),
            [&](int a, int b) { return std::abs(t.strides[a]) < std::abs(t.strides[b]); });
  int64_t extent = 1;  // of a part of the tensor: what one step along the next axis must clear
  for (int axis : axes) {
    const int64_t stride = std::abs(t.strides[axis]), last = t.shape[axis] - 1;
    require(last == 0 || stride >= extent, name,
            " is written to and must have elements that do not overlap, found strides ",
            ShapeText{t.strides, t.ndim}, " for shape ", shape_of(t));
    extent += last * stride;
  }
}

void require_apart(const char* name, const TensorView& output, const char* other_name,
                   const TensorView& other) {
  const bool are_used = num_elements(output) > 0 && num_elements(other) > 0;
  require(!are_used || output.data != other.data, name,
          " must have memory of its own, found that of ", other_name);
}

}  // namespace attnext
