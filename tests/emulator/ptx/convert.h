// How do 16-bit floats become float32 and back?
#pragma once

#include <bit>

#include "core/floats.h"
#include "ptx/declarations.h"

namespace attnext {

PTX_FN float ptx::f16_to_f32(uint16_t x) { return emulator::from_f16(x); }
PTX_FN float ptx::bf16_to_f32(uint16_t x) { return emulator::from_bf16(x); }
PTX_FN uint16_t ptx::f32_to_f16(float x) { return emulator::to_f16(x); }
PTX_FN uint16_t ptx::f32_to_bf16(float x) { return emulator::to_bf16(x); }
PTX_FN uint32_t ptx::pack_f16(float low, float high) {
  return f32_to_f16(low) | uint32_t{f32_to_f16(high)} << 16;
}
PTX_FN uint32_t ptx::pack_bf16(float low, float high) {
  return f32_to_bf16(low) | uint32_t{f32_to_bf16(high)} << 16;
}
PTX_FN float2 ptx::unpack_f16(uint32_t pair) {
  return {f16_to_f32(static_cast<uint16_t>(pair)), f16_to_f32(static_cast<uint16_t>(pair >> 16))};
}
PTX_FN float2 ptx::unpack_bf16(uint32_t pair) {
  return {bf16_to_f32(static_cast<uint16_t>(pair)), bf16_to_f32(static_cast<uint16_t>(pair >> 16))};
}
// Ties away from zero, as cvt.rna.
PTX_FN uint32_t ptx::f32_to_tf32(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7F800000u) == 0x7F800000u) return bits;
  return (bits + 0x1000u) & 0xFFFFE000u;
}

}  // namespace attnext
