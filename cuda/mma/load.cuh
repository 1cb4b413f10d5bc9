// How rows of q, k, v, dout reach a tile of shared memory: asynchronously in 16-byte chunks where
// memory allows, element by element elsewhere; zeros beyond the rows and their elements. Tiles that
// follow each other in memory come by a RowStream; the rest, row by row.
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

// How the rows of a tensor can be copied.
struct RowAccess {
  bool has_chunks;   // asynchronously
  bool has_streams;  // by a RowStream too: whole chunks, at distances of 32 bits within any tile
  int32_t chunks;    // of a row
  int32_t step;      // from row to row, in bytes
};
// Where streams have been used as far as they go: known when compiled, so that nothing is made for
// them a second time.
ATTNEXT_HD RowAccess row_by_row(RowAccess access) {
  access.has_streams = false;
  return access;
}
inline RowAccess access_of(const TensorView& t) {
  constexpr int64_t kFarthest = 1 << 22;
  const int64_t bytes = size_of(dtype_of(t)), row = t.shape[3] * bytes, step = t.strides[2] * bytes;
  const bool is_near = step >= -kFarthest && step <= kFarthest;
  return {has_chunks(t), has_chunks(t) && is_near && row % kChunkBytes == 0,
          static_cast<int32_t>(row / kChunkBytes), is_near ? static_cast<int32_t>(step) : 0};
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

// Which chunks of a tile a thread brings: chunk `lane` of row `row`, and those that follow at equal
// distances. Neighbouring threads read 128 bytes of a row, or 64 where it is no multiple of that.
template <int kThreads, int kColumns, int kElementBytes>
struct ThreadChunks {
  using Layout = TileLayout<kColumns, kElementBytes>;
  static constexpr int kLanes = Layout::kChunks % 8 == 0 ? 8 : 4, kRowsAtOnce = kThreads / kLanes;
  static_assert(Layout::kChunks % kLanes == 0 && kRowsAtOnce % 8 == 0, "permuted alike");

  PTX_FN static int lane(int thread) { return static_cast<unsigned>(thread) % kLanes; }
  PTX_FN static int row(int thread) { return static_cast<unsigned>(thread) / kLanes; }
};

// Tile rows 0 .. kRows - 1 <- source rows, of which the first `num_rows` exist; `offset(i)` is
// where row i begins. The caller commits and waits, and meets the block before anyone reads.
template <int kThreads, int kRows, int kColumns, class Element, class F>
PTX_FN void load_any_rows(uint32_t tile, const RowSource<Element>& source, int num_rows, int thread,
                          F&& offset) {
  using Stored = typename Element::Stored;
  using Chunks = ThreadChunks<kThreads, kColumns, sizeof(Stored)>;
  using Layout = typename Chunks::Layout;
#pragma unroll 1
  for (int row = Chunks::row(thread); row < kRows; row += Chunks::kRowsAtOnce) {
    const bool exists = row < num_rows;
    const Stored* from = source.data + (exists ? offset(row) : 0);
#pragma unroll 1
    for (int chunk = Chunks::lane(thread); chunk < Layout::kChunks; chunk += Chunks::kLanes) {
      const int first = chunk * Layout::kChunkElements;
      const int left =
          static_cast<int>(clamp_to(source.columns - first, 0, Layout::kChunkElements));
      const int count = exists ? left : 0;
      const uint32_t to = tile + Layout::chunk(row, chunk);
      if (source.has_chunks)
        ptx::cp_async<kChunkBytes>(to, from + (count > 0 ? first : 0),
                                   static_cast<uint32_t>(count * sizeof(Stored)));
      else
        ptx::st_shared(to, gather_chunk(from, source.stride, first, count));
    }
  }
}

// Rows at equal distances on their way into tiles, tile after tile. All that depends on neither the
// tile nor its row is found once, as what a block does for a tile besides products is what it can
// lose: row by row, the copies of a tile took as many instructions as half of its products.
template <class Element, int kThreads, int kRows, int kColumns>
struct RowStream {
  using Stored = typename Element::Stored;
  using Chunks = ThreadChunks<kThreads, kColumns, sizeof(Stored)>;
  using Layout = typename Chunks::Layout;
  static constexpr int kLanes = Chunks::kLanes, kRowsAtOnce = Chunks::kRowsAtOnce;

  const char* from = nullptr;  // the thread's first chunk in the next tile

  // From the row on whose first element is number `first` of `t`.
  PTX_FN void start(const TensorView& t, RowAccess access, int64_t first, int thread) {
    from = static_cast<const char*>(t.data) + first * static_cast<int64_t>(sizeof(Stored)) +
           int64_t{Chunks::row(thread)} * access.step + Chunks::lane(thread) * kChunkBytes;
  }

  // The next tile, all of whose rows exist. Chunks beyond the rows' elements are left as they are.
  PTX_FN void load(RowAccess access, uint32_t tile, int thread) {
    const int row = Chunks::row(thread), lane = Chunks::lane(thread);
    const uint32_t to = tile + Layout::chunk(row, lane);
    const int chunks = access.chunks - lane;
#pragma unroll
    for (int i = 0; i < kRows; i += kRowsAtOnce) {
      const char* at = from + int64_t{i} * access.step;
#pragma unroll
      for (int j = 0; j < Layout::kChunks; j += kLanes)
        if (j < chunks && (i + kRowsAtOnce <= kRows || row < kRows - i))
          ptx::cp_async<kChunkBytes>(to + Layout::bytes(i) + j * kChunkBytes, at + j * kChunkBytes,
                                     kChunkBytes);
    }
    from += int64_t{kRows} * access.step;
  }

  // To the same rows of the next head, `rows` after they were begun.
  PTX_FN void turn(const TensorView& t, RowAccess access, int64_t rows) {
    from += t.strides[1] * static_cast<int64_t>(sizeof(Stored)) - rows * access.step;
  }

  // Zeros for what load() leaves as it is.
  PTX_FN static void clear(RowAccess access, uint32_t tile, int thread) {
    if (access.chunks >= Layout::kChunks) return;
    for (int i = thread; i < kRows * Layout::kChunks; i += kThreads)
      if (i % Layout::kChunks >= access.chunks)
        ptx::st_shared(tile + Layout::chunk(i / Layout::kChunks, i % Layout::kChunks),
                       make_uint4(0, 0, 0, 0));
  }
};

// Two tensors whose rows go together: k and v, or q and dout. The tile of the second lies behind
// that of the first.
template <class Element, int kThreads, int kRows, int kColumns>
struct StreamPair {
  using Stream = RowStream<Element, kThreads, kRows, kColumns>;
  static constexpr uint32_t kTileBytes = Stream::Layout::bytes(kRows);

  Stream first, second;

  PTX_FN void load(RowAccess access, RowAccess access_second, uint32_t tile, int thread) {
    first.load(access, tile, thread);
    second.load(access_second, tile + kTileBytes, thread);
  }
  PTX_FN static void clear(RowAccess access, RowAccess access_second, uint32_t tile, int thread) {
    Stream::clear(access, tile, thread);
    Stream::clear(access_second, tile + kTileBytes, thread);
  }
};

// Tile rows 0 .. kRows - 1 <- rows of which the first `count` exist: by a stream if they lie at
// equal distances, row by row otherwise.
template <class Element, int kThreads, int kRows, int kColumns, class F>
PTX_FN void load_rows(const TensorView& t, RowAccess access, uint32_t tile, int count,
                      bool has_equal_distances, int thread, F&& offset) {
  if (access.has_streams && has_equal_distances && count == kRows) {
    using Stream = RowStream<Element, kThreads, kRows, kColumns>;
    Stream stream;
    stream.start(t, access, offset(0), thread);
    stream.load(access, tile, thread);
    Stream::clear(access, tile, thread);
  } else {
    load_any_rows<kThreads, kRows, kColumns>(tile, row_source<Element>(t, access.has_chunks), count,
                                             thread, offset);
  }
}

// Query rows first_row.. of a group.
template <class Element, int kThreads, int kRows, int kColumns>
PTX_FN void load_query_rows(const Problem& p, const Group& g, const TensorView& t, RowAccess access,
                            uint32_t tile, int64_t first_row, int thread) {
  const int count = static_cast<int>(clamp_to(g.num_rows - first_row, 0, kRows));
  load_rows<Element, kThreads, kRows, kColumns>(
      t, access, tile, count, g.num_heads == 1, thread,
      [&](int i) { return row_offset(p, g, t, position_of(g, first_row + i)); });
}

// Keys or values begin.. of a group.
template <class Element, int kThreads, int kRows, int kColumns>
PTX_FN void load_key_rows(const Problem& p, const Group& g, const TensorView& t, RowAccess access,
                          uint32_t tile, int64_t begin, int thread) {
  const int count = static_cast<int>(clamp_to(g.mask.seqlen_k - begin, 0, kRows));
  load_rows<Element, kThreads, kRows, kColumns>(
      t, access, tile, count, p.page_size == 0, thread,
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
