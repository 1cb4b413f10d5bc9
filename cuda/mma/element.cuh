// How 16-bit elements of tiles are multiplied, packed and unpacked.
#pragma once

#include "attention/dtype.h"
#include "ptx/convert.h"
#include "ptx/matrix.h"

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

}  // namespace attnext::cuda::mma
