// How stored elements become registers and registers become stored elements: every dtype, any
// stride, four at a time where memory allows.
#pragma once

#include "attention/params.h"
#include "common/math.cuh"
#include "ptx/convert.h"
#include "ptx/memory.h"

namespace attnext::cuda {

constexpr int kQuad = 4;

// Bytes of an element; a switch, for a table would lie in memory.
ATTNEXT_HD int64_t size_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat64:
    case DType::kInt64:
      return 8;
    case DType::kFloat32:
    case DType::kInt32:
      return 4;
    case DType::kFloat16:
    case DType::kBFloat16:
      return 2;
    default:
      return 1;
  }
}

template <class A>
constexpr DType kAccumulatorDType = sizeof(A) == 4 ? DType::kFloat32 : DType::kFloat64;

template <class T>
PTX_FN T read(const char* p) {
  return ptx::ld_readonly(reinterpret_cast<const T*>(p));
}
template <class T>
PTX_FN void write(char* p, T x) {
  ptx::st_global(reinterpret_cast<T*>(p), x);
}

// How a float dtype lies in memory.
struct StoredFloat64 {
  using Type = double;
  static PTX_FN double widen(double x) { return x; }
  template <class A>
  static PTX_FN double narrow(A x) {
    return x;
  }
};
struct StoredFloat32 {
  using Type = float;
  static PTX_FN float widen(float x) { return x; }
  template <class A>
  static PTX_FN float narrow(A x) {
    return static_cast<float>(x);
  }
};
struct StoredFloat16 {
  using Type = uint16_t;
  static PTX_FN float widen(uint16_t x) { return ptx::f16_to_f32(x); }
  template <class A>
  static PTX_FN uint16_t narrow(A x) {
    return ptx::f32_to_f16(static_cast<float>(x));
  }
};
struct StoredBFloat16 {
  using Type = uint16_t;
  static PTX_FN float widen(uint16_t x) { return ptx::bf16_to_f32(x); }
  template <class A>
  static PTX_FN uint16_t narrow(A x) {
    return ptx::f32_to_bf16(static_cast<float>(x));
  }
};

// `f` is called with one of them: a branch outside of loops.
template <class F>
PTX_FN void with_storage(DType dtype, F&& f) {
  if (dtype == DType::kFloat32) return f(StoredFloat32{});
  if (dtype == DType::kFloat16) return f(StoredFloat16{});
  if (dtype == DType::kBFloat16) return f(StoredBFloat16{});
  f(StoredFloat64{});
}

template <class A>
PTX_FN A read_element(const char* p, DType dtype) {
  A x = A(0);
  with_storage(dtype, [&](auto storage) {
    using Storage = decltype(storage);
    x = static_cast<A>(Storage::widen(read<typename Storage::Type>(p)));
  });
  return x;
}

template <class A>
PTX_FN void write_element(char* p, DType dtype, A x) {
  with_storage(dtype, [&](auto storage) { write(p, decltype(storage)::narrow(x)); });
}

// Element `offset` of a tensor, counted in elements.
template <class A>
PTX_FN A read_element(const TensorView& t, int64_t offset) {
  A x = A(0);
  with_storage(dtype_of(t), [&](auto storage) {
    using Storage = decltype(storage);
    const auto* from = static_cast<const typename Storage::Type*>(t.data) + offset;
    x = static_cast<A>(Storage::widen(ptx::ld_readonly(from)));
  });
  return x;
}

template <class A>
PTX_FN void write_element(const TensorView& t, int64_t offset, A x) {
  with_storage(dtype_of(t), [&](auto storage) {
    using Storage = decltype(storage);
    ptx::st_global(static_cast<typename Storage::Type*>(t.data) + offset, Storage::narrow(x));
  });
}

PTX_FN bool is_aligned(const char* p, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(p) % static_cast<uintptr_t>(bytes) == 0;
}

// Four elements that lie together and are aligned as one; false where there is no such load.
template <class A>
PTX_FN bool read_together(const char* p, DType dtype, A (&x)[kQuad]) {
  if (dtype == DType::kFloat32) {
    const float4 v = read<float4>(p);
    x[0] = A(v.x), x[1] = A(v.y), x[2] = A(v.z), x[3] = A(v.w);
    return true;
  }
  if (dtype == DType::kFloat16 || dtype == DType::kBFloat16) {
    const ushort4 v = read<ushort4>(p);
    const bool is_half = dtype == DType::kFloat16;
    x[0] = A(is_half ? ptx::f16_to_f32(v.x) : ptx::bf16_to_f32(v.x));
    x[1] = A(is_half ? ptx::f16_to_f32(v.y) : ptx::bf16_to_f32(v.y));
    x[2] = A(is_half ? ptx::f16_to_f32(v.z) : ptx::bf16_to_f32(v.z));
    x[3] = A(is_half ? ptx::f16_to_f32(v.w) : ptx::bf16_to_f32(v.w));
    return true;
  }
  if (dtype == DType::kFloat64) {
    const double2 a = read<double2>(p), b = read<double2>(p + 16);
    x[0] = A(a.x), x[1] = A(a.y), x[2] = A(b.x), x[3] = A(b.y);
    return true;
  }
  return false;
}

// Elements `begin` to begin + 3 of a row, zeros from `end` on.
template <class A>
PTX_FN void read_quad(const char* row, DType dtype, int64_t stride, int64_t begin, int64_t end,
                      A (&x)[kQuad]) {
  const int64_t size = size_of(dtype);
  const char* p = row + begin * stride * size;
  if (stride == 1 && begin + kQuad <= end && is_aligned(p, size == 8 ? 16 : kQuad * size) &&
      read_together(p, dtype, x))
    return;
#pragma unroll
  for (int i = 0; i < kQuad; ++i)
    x[i] = begin + i < end ? read_element<A>(p + i * stride * size, dtype) : A(0);
}

template <class A>
PTX_FN void write_quad(char* row, DType dtype, int64_t stride, int64_t begin, int64_t end,
                       const A (&x)[kQuad]) {
  const int64_t size = size_of(dtype);
  char* p = row + begin * stride * size;
  const bool is_together = stride == 1 && begin + kQuad <= end && is_aligned(p, kQuad * size);
  if (is_together && dtype == DType::kFloat32)
    return write(p, float4{float(x[0]), float(x[1]), float(x[2]), float(x[3])});
  if (is_together && dtype == DType::kFloat16)
    return write(p, ushort4{ptx::f32_to_f16(float(x[0])), ptx::f32_to_f16(float(x[1])),
                            ptx::f32_to_f16(float(x[2])), ptx::f32_to_f16(float(x[3]))});
  if (is_together && dtype == DType::kBFloat16)
    return write(p, ushort4{ptx::f32_to_bf16(float(x[0])), ptx::f32_to_bf16(float(x[1])),
                            ptx::f32_to_bf16(float(x[2])), ptx::f32_to_bf16(float(x[3]))});
#pragma unroll
  for (int i = 0; i < kQuad; ++i)
    if (begin + i < end) write_element<A>(p + i * stride * size, dtype, x[i]);
}

}  // namespace attnext::cuda
