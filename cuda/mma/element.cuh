// How elements of tiles are multiplied, packed and unpacked; and single elements of any float
// dtype.
#pragma once

#include "attention/params.h"
#include "ptx/convert.h"
#include "ptx/matrix.h"
#include "ptx/memory.h"

namespace attnext::cuda::mma {

// What the kernels know of an element: how it is stored, and two neighbours as one load.
struct Float16 {
  static constexpr DType kDType = DType::kFloat16;
  using Stored = uint16_t;
  using Pair = uint32_t;
  PTX_FN static void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    const uint32_t b[2] = {b0, b1};
    ptx::mma_m16n8k16_f16(d, a, b);
  }
  PTX_FN static uint32_t pack(float low, float high) { return ptx::pack_f16(low, high); }
  PTX_FN static float2 unpack(uint32_t pair) { return ptx::unpack_f16(pair); }
};

struct BFloat16 {
  static constexpr DType kDType = DType::kBFloat16;
  using Stored = uint16_t;
  using Pair = uint32_t;
  PTX_FN static void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    const uint32_t b[2] = {b0, b1};
    ptx::mma_m16n8k16_bf16(d, a, b);
  }
  PTX_FN static uint32_t pack(float low, float high) { return ptx::pack_bf16(low, high); }
  PTX_FN static float2 unpack(uint32_t pair) { return ptx::unpack_bf16(pair); }
};

// `f` is called with the storage type of `dtype` and a function that widens it: a branch outside of
// loops.
struct StoredFloat64 {
  using Type = double;
  PTX_FN static float widen(double x) { return static_cast<float>(x); }
  PTX_FN static double narrow(float x) { return x; }
};
struct StoredFloat32 {
  using Type = float;
  PTX_FN static float widen(float x) { return x; }
  PTX_FN static float narrow(float x) { return x; }
};
struct StoredFloat16 {
  using Type = uint16_t;
  PTX_FN static float widen(uint16_t x) { return ptx::f16_to_f32(x); }
  PTX_FN static uint16_t narrow(float x) { return ptx::f32_to_f16(x); }
};
struct StoredBFloat16 {
  using Type = uint16_t;
  PTX_FN static float widen(uint16_t x) { return ptx::bf16_to_f32(x); }
  PTX_FN static uint16_t narrow(float x) { return ptx::f32_to_bf16(x); }
};

template <class F>
PTX_FN void with_storage(DType dtype, F&& f) {
  if (dtype == DType::kFloat32) return f(StoredFloat32{});
  if (dtype == DType::kFloat16) return f(StoredFloat16{});
  if (dtype == DType::kBFloat16) return f(StoredBFloat16{});
  f(StoredFloat64{});
}

ATTNEXT_HD int size_of(DType dtype) {
  return dtype == DType::kFloat64 || dtype == DType::kInt64      ? 8
         : dtype == DType::kFloat32 || dtype == DType::kInt32    ? 4
         : dtype == DType::kFloat16 || dtype == DType::kBFloat16 ? 2
                                                                 : 1;
}

// Element `offset` (in elements) of a float tensor of any dtype.
PTX_FN float read_float(const TensorView& t, int64_t offset) {
  float value = 0;
  with_storage(dtype_of(t), [&](auto storage) {
    using Storage = decltype(storage);
    value =
        Storage::widen(ptx::ld_global(static_cast<const typename Storage::Type*>(t.data) + offset));
  });
  return value;
}

PTX_FN void write_float(const TensorView& t, int64_t offset, float value) {
  with_storage(dtype_of(t), [&](auto storage) {
    using Storage = decltype(storage);
    ptx::st_global(static_cast<typename Storage::Type*>(t.data) + offset, Storage::narrow(value));
  });
}

}  // namespace attnext::cuda::mma
