// How single elements of any dtype are read and written, off the kernels' hot path.
#include "attention/elements.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

namespace attnext {
namespace {

// A 16-bit float: sign, exponent, then `mantissa_bits` of fraction.
struct ShortFloat {
  int mantissa_bits, bias;
};

constexpr ShortFloat kHalf{10, 15};
constexpr ShortFloat kBrainHalf{7, 127};

constexpr int infinity_bits(ShortFloat f) { return 0x7FFF >> f.mantissa_bits << f.mantissa_bits; }

double decode(ShortFloat f, uint16_t bits) {
  const double sign = bits & 0x8000 ? -1.0 : 1.0;
  const int magnitude = bits & 0x7FFF, infinity = infinity_bits(f);
  if (magnitude > infinity) return std::numeric_limits<double>::quiet_NaN();
  if (magnitude == infinity) return sign * std::numeric_limits<double>::infinity();
  const int exponent = magnitude >> f.mantissa_bits;
  const int fraction = magnitude & ((1 << f.mantissa_bits) - 1);
  const int implicit = exponent > 0 ? 1 << f.mantissa_bits : 0;
  const int scale = (exponent > 0 ? exponent : 1) - f.bias - f.mantissa_bits;
  return sign * std::ldexp(static_cast<double>(implicit + fraction), scale);
}

uint16_t encode(ShortFloat f, double value) {
  const int sign = std::signbit(value) ? 0x8000 : 0, infinity = infinity_bits(f);
  const double magnitude = std::fabs(value);
  if (std::isnan(value)) return static_cast<uint16_t>(sign | infinity | 1 << (f.mantissa_bits - 1));
  if (magnitude >= std::ldexp(1.0, f.bias + 1)) return static_cast<uint16_t>(sign | infinity);
  const int smallest = 1 - f.bias;
  const int exponent = magnitude > 0 ? std::max(std::ilogb(magnitude), smallest) : smallest;
  // The implicit bit of a normal number, and a carry of the rounding, both add one to the exponent
  // field, which is why it starts from one less.
  const double steps = std::nearbyint(std::ldexp(magnitude, f.mantissa_bits - exponent));
  const int bits = ((exponent + f.bias - 1) << f.mantissa_bits) + static_cast<int>(steps);
  return static_cast<uint16_t>(sign | std::min(bits, infinity));
}

template <class T>
T load(const TensorView& t, int64_t offset) {
  return static_cast<const T*>(t.data)[offset];
}

template <class T>
void store(const TensorView& t, int64_t offset, T value) {
  static_cast<T*>(t.data)[offset] = value;
}

}  // namespace

int64_t num_elements(const TensorView& t) {
  int64_t count = is_present(t) ? 1 : 0;
  for (int axis = 0; axis < t.ndim; ++axis) count *= t.shape[axis];
  return count;
}

double read_float(const TensorView& t, int64_t offset) {
  switch (dtype_of(t)) {
    case DType::kFloat64:
      return load<double>(t, offset);
    case DType::kFloat32:
      return static_cast<double>(load<float>(t, offset));
    case DType::kFloat16:
      return decode(kHalf, load<uint16_t>(t, offset));
    default:
      return decode(kBrainHalf, load<uint16_t>(t, offset));
  }
}

int64_t read_integer(const TensorView& t, int64_t offset) {
  return dtype_of(t) == DType::kInt64 ? load<int64_t>(t, offset) : load<int32_t>(t, offset);
}

void write_float(const TensorView& t, int64_t offset, double value) {
  switch (dtype_of(t)) {
    case DType::kFloat64:
      return store(t, offset, value);
    case DType::kFloat32:
      return store(t, offset, static_cast<float>(value));
    case DType::kFloat16:
      return store(t, offset, encode(kHalf, value));
    default:
      return store(t, offset, encode(kBrainHalf, value));
  }
}

std::vector<double> read_rows(const TensorView& t, int64_t rows, int64_t columns) {
  const int64_t row_stride = t.ndim == 2 ? t.strides[0] : 0, stride = t.strides[t.ndim - 1];
  std::vector<double> values(static_cast<size_t>(rows * columns));
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; ++column) {
      values[row * columns + column] = read_float(t, row * row_stride + column * stride);
    }
  }
  return values;
}

void fill_zero(const TensorView& t) {
  if (num_elements(t) == 0) return;
  const int64_t size = kDTypes[t.dtype].size;
  int64_t shape[4] = {1, 1, 1, 1}, strides[4] = {0, 0, 0, 0};
  for (int axis = 0; axis < t.ndim; ++axis) {
    shape[4 - t.ndim + axis] = t.shape[axis];
    strides[4 - t.ndim + axis] = t.strides[axis] * size;
  }
  char* const data = static_cast<char*>(t.data);
  for (int64_t a = 0; a < shape[0]; ++a) {
    for (int64_t b = 0; b < shape[1]; ++b) {
      for (int64_t c = 0; c < shape[2]; ++c) {
        char* const row = data + a * strides[0] + b * strides[1] + c * strides[2];
        for (int64_t d = 0; d < shape[3]; ++d) std::memset(row + d * strides[3], 0, size);
      }
    }
  }
}

}  // namespace attnext
