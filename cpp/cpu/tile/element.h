// How stored elements become lanes and lanes become stored elements: every dtype, any stride.
#pragma once

#include "attention/dtype.h"
#include "attention/gradient.h"
#include "cpu/simd/bits.h"
#include "cpu/simd/math.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

template <class T>
ATTNEXT_HD T read(const char* p) {
  T x;
  std::memcpy(&x, p, sizeof(T));
  return x;
}
template <class T>
ATTNEXT_HD void write(char* p, T x) {
  std::memcpy(p, &x, sizeof(T));
}

template <class A>
static A read_element(const char* p, DType dtype) {
  switch (dtype) {
    case DType::kFloat64:
      return static_cast<A>(read<double>(p));
    case DType::kFloat32:
      return static_cast<A>(read<float>(p));
    case DType::kFloat16:
      return static_cast<A>(half_value(read<uint16_t>(p)));
    case DType::kBFloat16:
      return static_cast<A>(bfloat_value(read<uint16_t>(p)));
    case DType::kBool:
      return static_cast<A>(*p != 0);
    default:
      return A(0);
  }
}

template <class A>
static void write_element(char* p, DType dtype, A x) {
  switch (dtype) {
    case DType::kFloat64:
      return write(p, static_cast<double>(x));
    case DType::kFloat32:
      return write(p, static_cast<float>(x));
    case DType::kFloat16:
      return write(p, half_bits(static_cast<float>(x)));
    case DType::kBFloat16:
      return write(p, bfloat_bits(static_cast<float>(x)));
    default:
      return;
  }
}

ATTNEXT_HD int64_t size_of(DType dtype) { return kDTypes[static_cast<int>(dtype)].size; }

template <class A>
constexpr DType kAccumulatorDType = sizeof(A) == 4 ? DType::kFloat32 : DType::kFloat64;

// The first `count` of the row's elements from `begin` on, zeros in the lanes beyond.
template <class A>
ATTNEXT_HD Vec<A> load_elements(const char* row, DType dtype, int64_t stride, int64_t begin,
                                int64_t count) {
  const char* p = row + begin * stride * size_of(dtype);
  if (stride == 1 && count == kLanes<A>) {
    if (dtype == kAccumulatorDType<A>) return load_unaligned<A>(reinterpret_cast<const A*>(p));
    if constexpr (sizeof(A) == 4) {
      if (dtype == DType::kFloat16) return load_half(reinterpret_cast<const uint16_t*>(p));
      if (dtype == DType::kBFloat16) return load_bfloat(reinterpret_cast<const uint16_t*>(p));
    }
  }
  alignas(kVectorBytes) A staged[kLanes<A>] = {};
  for (int64_t i = 0; i < count; ++i)
    staged[i] = read_element<A>(p + i * stride * size_of(dtype), dtype);
  return load<A>(staged);
}

template <class A>
ATTNEXT_HD void store_elements(char* row, DType dtype, int64_t stride, int64_t begin, int64_t count,
                               Vec<A> x) {
  char* p = row + begin * stride * size_of(dtype);
  if (stride == 1 && count == kLanes<A>) {
    if (dtype == kAccumulatorDType<A>) return store_unaligned<A>(reinterpret_cast<A*>(p), x);
    if constexpr (sizeof(A) == 4) {
      if (dtype == DType::kFloat16) return store_half(reinterpret_cast<uint16_t*>(p), x);
      if (dtype == DType::kBFloat16) return store_bfloat(reinterpret_cast<uint16_t*>(p), x);
    }
  }
  alignas(kVectorBytes) A staged[kLanes<A>];
  store<A>(staged, x);
  for (int64_t i = 0; i < count; ++i)
    write_element<A>(p + i * stride * size_of(dtype), dtype, staged[i]);
}

// A row as accumulators, times `factor`, zero-padded to whole vectors: `out` has room for
// round_up(count, kLanes). Its type is asked once, not for each vector.
template <class A>
static void load_row(const char* row, DType dtype, int64_t stride, int64_t count, A* out,
                     A factor = A(1)) {
  int64_t i = 0;
  const auto load_whole = [&](auto element, auto&& load) {
    const auto* from = reinterpret_cast<const decltype(element)*>(row);
    for (; i + kLanes<A> <= count; i += kLanes<A>) store<A>(out + i, load(from + i) * factor);
  };
  if (stride == 1 && dtype == kAccumulatorDType<A>)
    load_whole(A(0), [](const A* p) { return load_unaligned<A>(p); });
  if constexpr (sizeof(A) == 4) {
    if (stride == 1 && dtype == DType::kFloat16)
      load_whole(uint16_t{0}, [](const uint16_t* p) { return load_half(p); });
    if (stride == 1 && dtype == DType::kBFloat16)
      load_whole(uint16_t{0}, [](const uint16_t* p) { return load_bfloat(p); });
  }
  for (; i < count; i += kLanes<A>)
    store<A>(out + i,
             load_elements<A>(row, dtype, stride, i, min_of(kLanes<A>, count - i)) * factor);
}

// A padded row, times `factor`.
template <class A>
static void store_row(char* row, DType dtype, int64_t stride, int64_t count, const A* in,
                      A factor = A(1)) {
  for (int64_t i = 0; i < count; i += kLanes<A>)
    store_elements<A>(row, dtype, stride, i, min_of(kLanes<A>, count - i),
                      load<A>(in + i) * factor);
}

template <class A, int kStep = kLanes<A> / 2>
ATTNEXT_HD A horizontal_sum(Vec<A> x) {
  x += rotate<kStep>(x, std::make_integer_sequence<int, kLanes<A>>{});
  if constexpr (kStep > 1) return horizontal_sum<A, kStep / 2>(x);
  return x[0];
}

// Of two padded rows.
template <class A>
static A dot_product(const A* a, const A* b, int64_t count) {
  Vec<A> sum{};
  for (int64_t i = 0; i < count; i += kLanes<A>) sum += load<A>(a + i) * load<A>(b + i);
  return horizontal_sum<A>(sum);
}

template <class A>
static A norm_of(const A* x, int64_t count) {
  return static_cast<A>(__builtin_sqrt(static_cast<double>(dot_product<A>(x, x, count))));
}

// x / |x| of a padded row; a zero vector stays zero: its cosine with anything is 0 and has no
// gradient. Divided, not multiplied by 1 / |x|: in one dimension the result is then exactly 1.
template <class A>
static void normalise_row(A* x, int64_t count) {
  const A norm = norm_of<A>(x, count);
  if (norm == 0) return;
  for (int64_t i = 0; i < count; i += kLanes<A>) store<A>(x + i, load<A>(x + i) / norm);
}

// `gradient` by x / |x| becomes the gradient by x, of padded rows. x is normalised on the way.
template <class A>
static void unnormalise_gradient(A* x, int64_t count, A* gradient) {
  const A norm = norm_of<A>(x, count), inverse = norm == 0 ? A(0) : A(1) / norm;
  normalise_row<A>(x, count);
  const A projection = dot_product<A>(gradient, x, count);
  for (int64_t i = 0; i < count; i += kLanes<A>)
    store<A>(gradient + i, normalised_gradient(load<A>(gradient + i), load<A>(x + i),
                                               splat<A>(projection), splat<A>(inverse)));
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
