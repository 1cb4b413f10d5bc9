// 16-bit floats in software: one meaning on every compiler and machine.
#pragma once

#include <bit>
#include <cstdint>

namespace emulator {

inline float from_bf16(uint16_t x) { return std::bit_cast<float>(uint32_t{x} << 16); }

inline uint16_t to_bf16(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return 0x7FFF;
  return static_cast<uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1)) >> 16);
}

inline float from_f16(uint16_t x) {
  // The exponent's bias is corrected by a multiplication, which also normalises subnormals.
  const uint32_t magnitude = uint32_t{x & 0x7FFFu} << 13, sign = uint32_t{x & 0x8000u} << 16;
  const float scaled = std::bit_cast<float>(magnitude) * 0x1p112f;
  const bool is_special = (x & 0x7C00u) == 0x7C00u;
  const uint32_t bits = is_special ? 0x7F800000u | magnitude : std::bit_cast<uint32_t>(scaled);
  return std::bit_cast<float>(bits | sign);
}

inline uint16_t to_f16(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return sign | 0x7FFF;
  if (magnitude >= 0x477FF000u) return sign | 0x7C00;  // rounds to 65536 or more
  if (magnitude < 0x38800000u) {
    // Subnormal: adding 0.5 puts the last bit of a half at the last bit of a float.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3F000000u));
  }
  const uint32_t rounded = magnitude + 0xFFFu + (magnitude >> 13 & 1);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

}  // namespace emulator
