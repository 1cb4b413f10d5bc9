// How rows of q, k, v, dout reach a tile of shared memory: asynchronously in 16-byte chunks where
// memory allows, element by element elsewhere; zeros beyond the rows and their elements.
#pragma once

#include "mma/layout.h"
#include "mma/rows.cuh"
#include "ptx/async_copy.h"
#include "ptx/thread.h"

namespace attnext::cuda::mma {

// Whether every row begins at a multiple of 16 bytes and lies without gaps. Pages and packed
// sequences begin at multiples of the same strides.
inline bool has_chunks(const TensorView& t) {
  const bool has_aligned_strides = t.strides[0] % kChunkElements == 0 &&
                                   t.strides[1] % kChunkElements == 0 &&
                                   t.strides[2] % kChunkElements == 0;
  return reinterpret_cast<uintptr_t>(t.data) % 16 == 0 && has_aligned_strides &&
         (t.strides[3] == 1 || t.shape[3] == 1);
}

// Rows of 16-bit elements in global memory.
struct RowSource {
  const uint16_t* data;
  int64_t stride;  // along a row, in elements
  int columns;
  bool has_chunks;
};

PTX_FN RowSource row_source(const TensorView& t, bool has_chunks) {
  return {static_cast<const uint16_t*>(t.data), t.strides[3], static_cast<int>(t.shape[3]),
          has_chunks};
}

PTX_FN uint4 gather_chunk(const RowSource& source, const uint16_t* row, int first, int count) {
  uint32_t words[4] = {0, 0, 0, 0};
#pragma unroll
  for (int i = 0; i < kChunkElements; ++i) {
    if (i < count)
      words[i / 2] |= static_cast<uint32_t>(ptx::ld_global(row + (first + i) * source.stride))
                      << (16 * (i % 2));
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

// Tile rows 0 .. kRows - 1 <- source rows, of which the first `num_rows` exist; `offset(i)` is where
// row i begins. The caller commits and waits, and meets the block before anyone reads.
template <int kThreads, int kRows, int kColumns, class F>
PTX_FN void load_rows(uint32_t tile, const RowSource& source, int num_rows, int thread,
                      F&& offset) {
  using Layout = TileLayout<kColumns>;
  constexpr int kCopies = kRows * Layout::kChunks;
#pragma unroll 1
  for (int i = thread; i < kCopies; i += kThreads) {
    const int row = i / Layout::kChunks, chunk = i % Layout::kChunks;
    const int first = chunk * kChunkElements;
    const int count = row < num_rows ? static_cast<int>(clamp_to(source.columns - first, 0, 8)) : 0;
    const uint16_t* from = source.data + (count > 0 ? offset(row) : 0);
    const uint32_t to = tile + Layout::chunk(row, chunk);
    if (source.has_chunks)
      ptx::cp_async<16>(to, from + (count > 0 ? first : 0), static_cast<uint32_t>(2 * count));
    else
      ptx::st_shared(to, gather_chunk(source, from, first, count));
  }
}

// 1 / |x| of the tile's rows to `out` (float, one a row), 1 for a row of zeros: its scores are 0.
template <class Element, int kThreads, int kRows, int kColumns>
PTX_FN void invert_norms(uint32_t tile, int thread, uint32_t out) {
  using Layout = TileLayout<kColumns>;
  for (int row = thread; row < kRows; row += kThreads) {
    float square = 0;
#pragma unroll 4
    for (int chunk = 0; chunk < Layout::kChunks; ++chunk) {
      const uint4 words = ptx::ld_shared<uint4>(tile + Layout::chunk(row, chunk));
      const uint32_t pairs[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float2 x = Element::unpack(pairs[i]);
        square += x.x * x.x + x.y * x.y;
      }
    }
    ptx::st_shared(out + 4 * static_cast<uint32_t>(row), square == 0 ? 1.f : 1 / sqrtf(square));
  }
}

}  // namespace attnext::cuda::mma
