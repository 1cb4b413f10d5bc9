// Where an element lies in a tile of shared memory, and which element of a fragment a thread holds.
#pragma once

#include <cstdint>

#include "attention/portable.h"

namespace attnext::cuda::mma {

constexpr int kChunkBytes = 16;  // what one lane's address of ldmatrix names

// Rows of kColumns elements, their 16-byte chunks permuted so that the eight rows that ldmatrix
// reads at once lie in different banks. Rows of 64 bytes more than a multiple of 128 alternate
// between two halves of the banks by themselves. Tiles begin at multiples of 128 bytes.
template <int kColumns, int kElementBytes>
struct TileLayout {
  static constexpr int kChunkElements = kChunkBytes / kElementBytes;
  static constexpr int kChunks = kColumns / kChunkElements;
  static constexpr int kRowBytes = kColumns * kElementBytes;
  static constexpr bool kFillsBanks = kChunks % 8 == 0, kFillsHalf = kChunks % 4 == 0;
  static constexpr int kPermuted = kFillsBanks  ? 7
                                   : kFillsHalf ? 3
                                                : 0;  // bits of a chunk's number

  static constexpr int bytes(int rows) { return rows * kRowBytes; }
  ATTNEXT_HD uint32_t chunk(int row, int chunk) {
    const int permuted = kFillsBanks  ? chunk ^ (row & 7)
                         : kFillsHalf ? chunk ^ ((row >> 1) & 3)
                                      : chunk;
    return static_cast<uint32_t>(row * kRowBytes + permuted * kChunkBytes);
  }
  // From the address of chunk c of a row to that of chunk c + n, which share no bits: one operation
  // for n of the bits that are permuted, none for the others.
  ATTNEXT_HD uint32_t skip(uint32_t address, int n) {
    return (address ^ static_cast<uint32_t>((n & kPermuted) * kChunkBytes)) +
           static_cast<uint32_t>((n & ~kPermuted) * kChunkBytes);
  }
  // Of an element whose neighbours in its chunk follow.
  ATTNEXT_HD uint32_t element(int row, int column) {
    return chunk(row, column / kChunkElements) +
           static_cast<uint32_t>(column % kChunkElements * kElementBytes);
  }
};

// Accumulator fragments are [16 rows][8 columns], four floats a lane: index 2 half + e is row
// lane / 4 + 8 half, column 2 (lane % 4) + e.
ATTNEXT_HD int fragment_row(int lane, int half) { return lane / 4 + 8 * half; }
ATTNEXT_HD int fragment_column(int lane) { return 2 * (lane % 4); }

}  // namespace attnext::cuda::mma
