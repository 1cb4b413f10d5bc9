// How do 16-bit floats become float32 and back?
#pragma once

#include "ptx/declarations.h"

namespace attnext {

PTX_FN float ptx::f16_to_f32(uint16_t x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
  return y;
}
PTX_FN float ptx::bf16_to_f32(uint16_t x) { return __uint_as_float(uint32_t{x} << 16); }
PTX_FN uint16_t ptx::f32_to_f16(float x) {
  uint16_t y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
  return y;
}
PTX_FN uint16_t ptx::f32_to_bf16(float x) {
#if __CUDA_ARCH__ >= 800
  uint16_t y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y) : "f"(x));
  return y;
#else
  const uint32_t bits = __float_as_uint(x);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return 0x7FFF;  // NaN: rounding could make it infinite
  return static_cast<uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1)) >> 16);
#endif
}
PTX_FN uint32_t ptx::pack_f16(float low, float high) {
#if __CUDA_ARCH__ >= 800
  uint32_t pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#else
  return f32_to_f16(low) | uint32_t{f32_to_f16(high)} << 16;
#endif
}
PTX_FN uint32_t ptx::pack_bf16(float low, float high) {
#if __CUDA_ARCH__ >= 800
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#else
  return f32_to_bf16(low) | uint32_t{f32_to_bf16(high)} << 16;
#endif
}
PTX_FN float2 ptx::unpack_f16(uint32_t pair) {
  return make_float2(f16_to_f32(static_cast<uint16_t>(pair)),
                     f16_to_f32(static_cast<uint16_t>(pair >> 16)));
}
PTX_FN float2 ptx::unpack_bf16(uint32_t pair) {
  return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xFFFF0000u));
}
PTX_FN uint32_t ptx::f32_to_tf32(float x) {
#if __CUDA_ARCH__ >= 800
  uint32_t y;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
  return y;
#else
  return __float_as_uint(x);
#endif
}

}  // namespace attnext
