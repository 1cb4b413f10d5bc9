// How wgmma finds its operands in shared memory: the matrix descriptor.
#pragma once

#include <cstdint>

#include "core/hopper.h"
#include "core/tensor_map.h"

namespace emulator {

constexpr uint32_t kChunkBytes = 16;  // 8 elements, contiguous whatever the swizzle

struct Descriptor {
  uint32_t start, leading_bytes, stride_bytes;
  uint32_t row_bytes;  // of the swizzle: 128, 64 or 32
};

Descriptor decode_descriptor(uint64_t bits, const Site& site);

// Calls f(address, row, k) for each chunk of rows [first, last) (m or n) and 16 values of k. Not
// transposed, a chunk is 8 values of k from k on in one row; transposed, 8 rows from row on at k.
template <class F>
void for_each_chunk(const Descriptor& d, bool transposes, int first, int last, F f) {
  const int slab = static_cast<int>(d.row_bytes / 2);  // elements of a row
  if (!transposes) {
    for (int row = first; row < last; ++row) {
      for (int k = 0; k < 16; k += 8) {
        const uint32_t offset = row / 8 * d.stride_bytes + row % 8 * d.row_bytes + k * 2;
        f(swizzled(d.start + offset, d.row_bytes), row, k);
      }
    }
    return;
  }
  for (int k = 0; k < 16; ++k) {
    for (int row = first; row < last; row += 8) {
      const uint32_t offset = row / slab * d.leading_bytes + k / 8 * d.stride_bytes +
                              k % 8 * d.row_bytes + row % slab * 2;
      f(swizzled(d.start + offset, d.row_bytes), row, k);
    }
  }
}

// p.d += a b for the 16 rows of one warp.
void multiply_rows(Block& block, int warp, const Wgmma& p);

}  // namespace emulator
