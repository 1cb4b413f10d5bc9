// The matrix products of a warp on tiles in shared memory and fragments in registers.
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

// s += a bT: rows first_row.. of tile `a` against the rows of tile `b`, both kDepth wide.
template <class Element, int kDepth, int kRowFragments, int kFragments>
PTX_FN void multiply_rows(uint32_t a, int first_row, uint32_t b, int lane,
                          Accumulator<kRowFragments, kFragments>& s) {
  using Layout = TileLayout<kDepth>;
#pragma unroll
  for (int k = 0; k < kDepth / 16; ++k) {
    uint32_t rows[kRowFragments][4];
#pragma unroll
    for (int m = 0; m < kRowFragments; ++m)
      ptx::ldmatrix_x4(rows[m],
                       a + Layout::chunk(first_row + 16 * m + lane % 16, 2 * k + lane / 16));
#pragma unroll
    for (int j = 0; j < kFragments / 2; ++j) {
      uint32_t columns[4];
      ptx::ldmatrix_x4(columns,
                       b + Layout::chunk(16 * j + lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2));
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
  using Layout = TileLayout<8 * kColumnFragments>;
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
      ptx::ldmatrix_x4_trans(columns, b + Layout::chunk(16 * k + lane % 16, 2 * j + lane / 16));
#pragma unroll
      for (int m = 0; m < kRowFragments; ++m) {
        Element::multiply(o[m][2 * j], weights[m], columns[0], columns[1]);
        Element::multiply(o[m][2 * j + 1], weights[m], columns[2], columns[3]);
      }
    }
  }
}

// c += aT b: columns first_column.. of tile `a`, kColumns wide, over its kRows rows, against the
// same rows of tile `b`.
template <class Element, int kRows, int kColumns, int kColumnFragments>
PTX_FN void multiply_columns(uint32_t a, int first_column, uint32_t b, int lane,
                             Accumulator<1, kColumnFragments>& c) {
  using LayoutA = TileLayout<kColumns>;
  using LayoutB = TileLayout<8 * kColumnFragments>;
#pragma unroll
  for (int k = 0; k < kRows / 16; ++k) {
    uint32_t rows[4];
    ptx::ldmatrix_x4_trans(rows, a + LayoutA::chunk(16 * k + lane % 8 + lane / 16 * 8,
                                                    first_column / 8 + lane / 8 % 2));
#pragma unroll
    for (int j = 0; j < kColumnFragments / 2; ++j) {
      uint32_t columns[4];
      ptx::ldmatrix_x4_trans(columns, b + LayoutB::chunk(16 * k + lane % 16, 2 * j + lane / 16));
      Element::multiply(c[0][2 * j], rows, columns[0], columns[1]);
      Element::multiply(c[0][2 * j + 1], rows, columns[2], columns[3]);
    }
  }
}

// A warp's fragments, rounded to 16 bits, to rows first_row.., columns first_column.. of a tile in
// shared memory, kColumns wide.
template <class Element, int kColumns, int kFragments>
PTX_FN void store_fragments(const Accumulator<1, kFragments>& x, int first_row, int first_column,
                            int lane, uint32_t tile) {
  using Layout = TileLayout<kColumns>;
#pragma unroll
  for (int j = 0; j < kFragments; ++j)
#pragma unroll
    for (int half = 0; half < 2; ++half)
      ptx::st_shared(tile + Layout::element(first_row + fragment_row(lane, half),
                                            first_column + 8 * j + fragment_column(lane)),
                     Element::pack(x[0][j][2 * half], x[0][j][2 * half + 1]));
}

}  // namespace attnext::cuda::mma
