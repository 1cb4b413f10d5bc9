// The matrix products of a warp on tiles of 16-bit elements in shared memory and fragments in
// registers; float32.cuh has those of float32.
#pragma once

#include "mma/element.cuh"
#include "mma/layout.h"

namespace attnext::cuda::mma {

// A warp's sums: fragments of 16 rows and 8 columns.
template <int kRowFragments, int kFragments>
using Accumulator = float[kRowFragments][kFragments][4];

template <int kRowFragments, int kFragments>
PTX_FN void clear(Accumulator<kRowFragments, kFragments>& x) {
#pragma unroll
  for (int m = 0; m < kRowFragments; ++m)
#pragma unroll
    for (int j = 0; j < kFragments; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) x[m][j][i] = 0;
}

// Rows of a tile as the left operand of a warp's products, kDepth wide: in registers for the life
// of the block where kIsKept, else read again for every product.
template <int kDepth, int kRowFragments, bool kIsKept>
struct RowOperand {
  using Layout = TileLayout<kDepth, 2>;
  uint32_t at;  // the lane's chunk of the first fragment
  uint32_t kept[kIsKept ? kDepth / 16 : 1][kRowFragments][4];

  // Rows first_row.. of a tile that is there.
  PTX_FN void set(uint32_t tile, int first_row, int lane) {
    at = tile + Layout::chunk(first_row + lane % 16, lane / 16);
    if constexpr (kIsKept) {
#pragma unroll
      for (int k = 0; k < kDepth / 16; ++k) load(k, kept[k]);
    }
  }
  PTX_FN void load(int k, uint32_t (&rows)[kRowFragments][4]) const {
#pragma unroll
    for (int m = 0; m < kRowFragments; ++m)
      ptx::ldmatrix_x4(rows[m], Layout::skip(at, 2 * k) + Layout::bytes(16 * m));
  }
  PTX_FN void get(int k, uint32_t (&rows)[kRowFragments][4]) const {
    if constexpr (kIsKept) {
#pragma unroll
      for (int m = 0; m < kRowFragments; ++m)
#pragma unroll
        for (int i = 0; i < 4; ++i) rows[m][i] = kept[k][m][i];
    } else {
      load(k, rows);
    }
  }
};

// s += a bT, against the rows of tile `b`.
template <class Element, int kDepth, int kRowFragments, bool kIsKept, int kFragments>
PTX_FN void multiply_rows(const RowOperand<kDepth, kRowFragments, kIsKept>& a, uint32_t b, int lane,
                          Accumulator<kRowFragments, kFragments>& s) {
  using Layout = TileLayout<kDepth, 2>;
  const uint32_t first = b + Layout::chunk(lane % 8 + lane / 16 * 8, lane / 8 % 2);
#pragma unroll
  for (int k = 0; k < kDepth / 16; ++k) {
    uint32_t rows[kRowFragments][4];
    a.get(k, rows);
#pragma unroll
    for (int j = 0; j < kFragments / 2; ++j) {
      uint32_t columns[4];
      ptx::ldmatrix_x4(columns, Layout::skip(first, 2 * k) + Layout::bytes(16 * j));
#pragma unroll
      for (int m = 0; m < kRowFragments; ++m) {
        Element::multiply(s[m][2 * j], rows[m], columns[0], columns[1]);
        Element::multiply(s[m][2 * j + 1], rows[m], columns[2], columns[3]);
      }
    }
  }
}

// o += p b: weights in registers, rounded to 16 bits here, against the rows of tile `b`. An
// accumulator's fragments are, pair by pair, the left operand of a product.
template <class Element, int kRowFragments, int kFragments, int kColumnFragments>
PTX_FN void multiply_weights(const Accumulator<kRowFragments, kFragments>& p, uint32_t b, int lane,
                             Accumulator<kRowFragments, kColumnFragments>& o) {
  using Layout = TileLayout<8 * kColumnFragments, 2>;
  const uint32_t first = b + Layout::chunk(lane % 16, lane / 16);
#pragma unroll
  for (int k = 0; k < kFragments / 2; ++k) {
    uint32_t weights[kRowFragments][4];
#pragma unroll
    for (int m = 0; m < kRowFragments; ++m)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        weights[m][i] =
            Element::pack(p[m][2 * k + i / 2][i % 2 * 2], p[m][2 * k + i / 2][i % 2 * 2 + 1]);
#pragma unroll
    for (int j = 0; j < kColumnFragments / 2; ++j) {
      uint32_t columns[4];
      ptx::ldmatrix_x4_trans(columns, Layout::skip(first, 2 * j) + Layout::bytes(16 * k));
#pragma unroll
      for (int m = 0; m < kRowFragments; ++m) {
        Element::multiply(o[m][2 * j], weights[m], columns[0], columns[1]);
        Element::multiply(o[m][2 * j + 1], weights[m], columns[2], columns[3]);
      }
    }
  }
}

}  // namespace attnext::cuda::mma
