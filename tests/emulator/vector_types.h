// Which vector types of CUDA do kernels and host code name?
#pragma once

#include <cstdint>

// NOLINTBEGIN(readability-identifier-naming): CUDA's names.
struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned width = 1, unsigned height = 1, unsigned depth = 1)
      : x(width), y(height), z(depth) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
};

#define EMULATOR_VECTOR(name, scalar)                                                           \
  struct alignas(2 * sizeof(scalar)) name##2 { scalar x, y; };                                  \
  struct alignas(sizeof(scalar) == 8 ? 16 : 4 * sizeof(scalar)) name##4 { scalar x, y, z, w; }; \
  constexpr name##2 make_##name##2(scalar x, scalar y) { return {x, y}; }                       \
  constexpr name##4 make_##name##4(scalar x, scalar y, scalar z, scalar w) { return {x, y, z, w}; }
EMULATOR_VECTOR(float, float)
EMULATOR_VECTOR(double, double)
EMULATOR_VECTOR(int, int)
EMULATOR_VECTOR(uint, unsigned)
EMULATOR_VECTOR(short, short)
EMULATOR_VECTOR(ushort, unsigned short)
#undef EMULATOR_VECTOR
// NOLINTEND(readability-identifier-naming)
