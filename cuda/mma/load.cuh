// How rows of q, k, v, dout reach a tile of shared memory: asynchronously in 16-byte chunks where
// memory allows, element by element elsewhere; zeros beyond the rows and their elements.
#pragma once

#include <cstring>

#include "common/rows.cuh"
#include "mma/layout.h"
#include "ptx/async_copy.h"

namespace attnext::cuda::mma {

// Whether every row begins at a multiple of 16 bytes and lies without gaps. Pages and packed
// sequences begin at multiples of the same strides.
inline bool has_chunks(const TensorView& t) {
  const int64_t elements = kChunkBytes / size_of(dtype_of(t));
  const bool has_aligned_strides =
      t.strides[0] % elements == 0 && t.strides[1] % elements == 0 && t.strides[2] % elements == 0;
  return reinterpret_cast<uintptr_t>(t.data) % kChunkBytes == 0 && has_aligned_strides &&
         (t.strides[3] == 1 || t.shape[3] == 1);
}

// Rows of elements in global memory.
template <class Element>
struct RowSource {
  const typename Element::Stored* data;
  int64_t stride;  // along a row, in elements
  int columns;
  bool has_chunks;
};

template <class Element>
PTX_FN RowSource<Element> row_source(const TensorView& t, bool has_chunks) {
  return {static_cast<const typename Element::Stored*>(t.data), t.strides[3],
          static_cast<int>(t.shape[3]), has_chunks};
}

template <class Stored>
PTX_FN uint4 gather_chunk(const Stored* row, int64_t stride, int first, int count) {
  constexpr int kBytes = sizeof(Stored), kInWord = 4 / kBytes;
  uint32_t words[4] = {0, 0, 0, 0};
#pragma unroll
  for (int i = 0; i < kChunkBytes / kBytes; ++i) {
    if (i < count)
      words[i / kInWord] |= static_cast<uint32_t>(ptx::ld_global(row + (first + i) * stride))
                            << (8 * kBytes * (i % kInWord));
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

// Copies of a thread that are issued together.
constexpr int kLoadUnroll = 1;

// Rows at equal distances: where the first begins, and how far it is to the next.
struct EvenRows {
  int64_t first, step;
};

// Tile rows 0 .. kRows - 1 <- source rows, of which the first `num_rows` exist; `offset(i)` is
// where row i begins. The caller commits and waits, and meets the block before anyone reads.
template <int kThreads, int kRows, int kColumns, class Element, class F>
PTX_FN void load_any_rows(uint32_t tile, const RowSource<Element>& source, int num_rows, int thread,
                          F&& offset) {
  using Stored = typename Element::Stored;
  using Layout = TileLayout<kColumns, sizeof(Stored)>;
#pragma unroll 1
  for (int i = thread; i < kRows * Layout::kChunks; i += kThreads) {
    const int row = i / Layout::kChunks, chunk = i % Layout::kChunks;
    const int first = chunk * Layout::kChunkElements;
    const int left = static_cast<int>(clamp_to(source.columns - first, 0, Layout::kChunkElements));
    const int count = row < num_rows ? left : 0;
    const Stored* from = source.data + (count > 0 ? offset(row) : 0);
    const uint32_t to = tile + Layout::chunk(row, chunk);
    if (source.has_chunks)
      ptx::cp_async<kChunkBytes>(to, from + (count > 0 ? first : 0),
                                 static_cast<uint32_t>(count * sizeof(Stored)));
    else
      ptx::st_shared(to, gather_chunk(from, source.stride, first, count));
  }
}

// The same where it is quick: a thread keeps its column where it can, and steps from row to row.
// Not unrolled further: next to the sums there are no registers for more addresses.
template <int kThreads, int kRows, int kColumns, class Element>
PTX_FN void load_even_rows(uint32_t tile, const RowSource<Element>& source, int num_rows,
                           int thread, EvenRows rows) {
  using Stored = typename Element::Stored;
  using Layout = TileLayout<kColumns, sizeof(Stored)>;
  // Threads beyond a multiple of the chunks of a row would change column: they look on.
  constexpr int kStep = kThreads / Layout::kChunks;
  const int chunk = thread % Layout::kChunks, first = chunk * Layout::kChunkElements;
  const int left = static_cast<int>(clamp_to(source.columns - first, 0, Layout::kChunkElements));
  if (thread >= kStep * Layout::kChunks) return;
  const Stored* from = source.data + rows.first + thread / Layout::kChunks * rows.step + first;
#pragma unroll kLoadUnroll
  for (int row = thread / Layout::kChunks; row < kRows; row += kStep) {
    const int count = row < num_rows ? left : 0;
    ptx::cp_async<kChunkBytes>(tile + Layout::chunk(row, chunk), count > 0 ? from : source.data,
                               static_cast<uint32_t>(count * sizeof(Stored)));
    from += kStep * rows.step;
  }
}

// Query rows first_row.. of a group.
template <class Element, int kThreads, int kRows, int kColumns>
PTX_FN void load_query_rows(const Problem& p, const Group& g, const TensorView& t, bool has_chunks,
                            uint32_t tile, int64_t first_row, int thread) {
  const int count = static_cast<int>(clamp_to(g.num_rows - first_row, 0, kRows));
  const auto source = row_source<Element>(t, has_chunks);
  if (has_chunks && g.num_heads == 1)
    load_even_rows<kThreads, kRows, kColumns>(
        tile, source, count, thread,
        {row_offset(p, g, t, {first_row, g.first_head}), t.strides[2]});
  else
    load_any_rows<kThreads, kRows, kColumns>(tile, source, count, thread, [&](int i) {
      return row_offset(p, g, t, position_of(g, first_row + i));
    });
}

// Keys or values begin.. of a group.
template <class Element, int kThreads, int kRows, int kColumns>
PTX_FN void load_key_rows(const Problem& p, const Group& g, const TensorView& t, bool has_chunks,
                          uint32_t tile, int64_t begin, int thread) {
  const int count = static_cast<int>(clamp_to(g.mask.seqlen_k - begin, 0, kRows));
  const auto source = row_source<Element>(t, has_chunks);
  if (has_chunks && p.page_size == 0)
    load_even_rows<kThreads, kRows, kColumns>(tile, source, count, thread,
                                              {key_offset(p, g, t, begin), t.strides[2]});
  else
    load_any_rows<kThreads, kRows, kColumns>(tile, source, count, thread,
                                             [&](int i) { return key_offset(p, g, t, begin + i); });
}

// 1 / |x| of the rows of a tile to `out` (float, one a row), 0 for a row of zeros: its scores and
// its gradient are 0.
template <class Element, int kThreads, int kRows, int kColumns>
PTX_FN void invert_norms(uint32_t tile, int thread, uint32_t out) {
  using Layout = TileLayout<kColumns, sizeof(typename Element::Stored)>;
  using Pair = typename Element::Pair;
  for (int row = thread; row < kRows; row += kThreads) {
    float square = 0;
#pragma unroll 4
    for (int chunk = 0; chunk < Layout::kChunks; ++chunk) {
      const uint4 words = ptx::ld_shared<uint4>(tile + Layout::chunk(row, chunk));
      Pair pairs[kChunkBytes / sizeof(Pair)];
      memcpy(pairs, &words, kChunkBytes);
#pragma unroll
      for (const Pair pair : pairs) {
        const float2 x = Element::unpack(pair);
        square += x.x * x.x + x.y * x.y;
      }
    }
    ptx::st_shared(out + 4 * static_cast<uint32_t>(row), square == 0 ? 0.f : 1 / sqrtf(square));
  }
}

}  // namespace attnext::cuda::mma
