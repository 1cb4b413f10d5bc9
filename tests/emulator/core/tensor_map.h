// Tensor maps: a box of a tensor in global memory, and where its rows lie in shared memory.
#pragma once

#include <cstdint>
#include <functional>

#include "core/shadow.h"

namespace emulator {

constexpr int kMaxRank = 5;

// What an encoded CUtensorMap holds here.
struct TensorMap {
  uint32_t magic;
  uint8_t rank, element_bytes;
  uint8_t swizzle_bytes;  // 0: none
  uint8_t* base;
  uint64_t extents[kMaxRank], byte_strides[kMaxRank];  // innermost first
  uint32_t box[kMaxRank];

  uint32_t box_bytes() const;
};

// Fails unless `map` was encoded with this rank and fits the shared address.
TensorMap decode_map(const void* map, int rank, uint32_t shared, const Site& site);

// Address within rows of 128, 64 or 32 bytes: 16-byte chunks change places with the row.
uint32_t swizzled(uint32_t address, uint32_t row_bytes);

// Copies the box between `shared` (a block's shared memory, from address 0) and global memory;
// what lies outside the tensor is read as zero and not written.
void copy_box(const TensorMap& map, const int32_t* coordinates, uint8_t* shared, uint32_t address,
              bool loads);

}  // namespace emulator
