// Where do the elements of a swizzled tile lie, and how is that said to wgmma? (sm_90a)
#pragma once

#include <cstdint>

namespace probe {

// A tile of kRows rows in slabs of kSlab columns of 16 bits, each row of a slab one swizzled line
// of 128 bytes (64 columns) or 64 bytes (32). Its base is a multiple of 1024 bytes.
template <int kRows_, int kSlab_ = 64>
struct Tile {
  static constexpr int kRows = kRows_, kSlab = kSlab_;
  static_assert(kSlab == 64 || kSlab == 32);
  static constexpr uint32_t kLine = kSlab * 2, kSlabBytes = kRows * kLine;

  // The descriptor of an operand that begins at `address`: strides between groups of eight lines,
  // and between slabs (only read where the operand is transposed).
  __host__ __device__ static constexpr uint64_t descriptor(uint32_t address) {
    const uint64_t swizzle = kSlab == 64 ? 1 : 2;
    return (address & 0x3FFFF) >> 4 | uint64_t{kSlabBytes >> 4} << 16 |
           uint64_t{(8 * kLine) >> 4} << 32 | swizzle << 62;
  }
  // What is added to it for step i of 16 along the columns, or along the rows (transposed).
  __host__ __device__ static constexpr uint64_t column_step(int i) {
    return (i / (kSlab / 16) * kSlabBytes + i % (kSlab / 16) * 32) >> 4;
  }
  __host__ __device__ static constexpr uint64_t row_step(int i) { return (i * 16 * kLine) >> 4; }
};

}  // namespace probe
