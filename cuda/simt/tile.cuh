// How a block of threads lies over its tiles, and how much of everything there is: the one place of
// tuning numbers of the FFMA path. None of them has been measured yet.
#pragma once

#include "common/scores.cuh"
#include "common/shared.cuh"
#include "ptx/thread.h"

namespace attnext::cuda::simt {

// 16 x 16 threads. A thread owns kRows neighbouring rows of the first operand (`ty`) and 4 of the
// second (`tx`); with kRows 4 a warp loads 3 wavefronts of shared memory for 16 FFMAs, which take 4
// cycles of a multiprocessor.
constexpr int kSide = 16;
constexpr int kThreads = kSide * kSide;

// Rows of queries a block owns: 64, or 16 where there are no more (decoding).
constexpr int kManyRows = 4, kFewRows = 1;
template <int kRows>
constexpr int kTileRows = kSide * kRows;

constexpr int kTileK = kSide * kQuad;

// Elements of head_dim (or rows of values) in shared memory at a time: 8 KiB per operand.
template <class A>
constexpr int kSlab = sizeof(A) == 4 ? 32 : 16;

// Steps of a product that are loaded ahead: what registers allow beside the sums.
template <class A>
constexpr int kStepsAhead = sizeof(A) == 4 ? 4 : 2;

// Accumulated columns: 64 for each quad a thread holds. Wider outputs are shared out among blocks.
template <class A, class Term>
constexpr int kQuads = sizeof(A) == 4 && Term::kIsBilinear ? 2 : 1;
constexpr int kQuadColumns = kSide * kQuad;

// Keys a split takes when there are too few query rows to share out (decoding). Fixed positions:
// the bits of a result must not depend on how many multiprocessors there are.
constexpr int64_t kSplitKeys = 512;

// More shared memory than this a kernel must not use: what sm_75 offers.
constexpr uint32_t kMaxSharedBytes = 64 * 1024;

struct ThreadPlace {
  int index, ty, tx;
};
PTX_FN ThreadPlace thread_place() {
  const int index = static_cast<int>(ptx::thread_index().x);
  return {index, index / kSide, index % kSide};
}

// Over the 16 threads of a row. They end with the same bits: a + b is b + a.
template <class A>
PTX_FN A row_sum_of(A x) {
#pragma unroll
  for (uint32_t lanes = 1; lanes < kSide; lanes *= 2) x += ptx::shuffle_xor(x, lanes);
  return x;
}
template <class A>
PTX_FN A row_maximum_of(A x) {
#pragma unroll
  for (uint32_t lanes = 1; lanes < kSide; lanes *= 2)
    x = ThreadMath<A>::maximum(x, ptx::shuffle_xor(x, lanes));
  return x;
}

// Rows of registers cannot be indexed by a loop that stays one. A loop that works on row 0 and
// turns the rows after each step visits all of them, once each, and leaves them as they were: a
// quarter of the code, for a few moves.
template <int kRows, int kColumns, class A>
PTX_FN void turn_rows(A (&x)[kRows][kColumns]) {
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
    const A first = x[0][c];
#pragma unroll
    for (int i = 0; i + 1 < kRows; ++i) x[i][c] = x[i + 1][c];
    x[kRows - 1][c] = first;
  }
}
template <int kRows, class A>
PTX_FN void turn(A (&x)[kRows]) {
  const A first = x[0];
#pragma unroll
  for (int i = 0; i + 1 < kRows; ++i) x[i] = x[i + 1];
  x[kRows - 1] = first;
}
template <int kRows, int kColumns, class A>
PTX_FN void turn_columns(A (&x)[kRows][kColumns]) {
#pragma unroll
  for (int i = 0; i < kRows; ++i) turn(x[i]);
}

// A function of float64 takes a hundred instructions: where there is one for each pair, rows take
// turns; of float32 they lie side by side.
template <class A, int kRows>
constexpr int kRowsAtOnce = sizeof(A) == 8 ? 1 : kRows;

// Of the two axes that blocks are counted over.
constexpr int64_t kGridColumns = int64_t{1} << 30;

// Calls work(i) for i in [0, count), a block each.
template <class F>
PTX_FN void for_blocks(int64_t count, F&& work) {
  if (block_number() < count) work(block_number());
}

}  // namespace attnext::cuda::simt
