// The matrix products of a warp on tiles of float32. A number is split into two of tf32, 11 bits
// each; three of their four products make one of float32 (Ootomo and Yokota 2022,
// arXiv:2203.03341), and the fourth lies below its last digits.
#pragma once

#include <bit>
#include <concepts>
#include <type_traits>

#include "mma/matmul.cuh"

namespace attnext::cuda::mma {

struct Float32 {
  static constexpr DType kDType = DType::kFloat32;
  using Stored = uint32_t;
  using Pair = float2;
  PTX_FN static float2 pack(float low, float high) { return make_float2(low, high); }
  PTX_FN static float2 unpack(float2 pair) { return pair; }
};

// x = high + low, but for at most 2^-23 of x.
template <int kCount>
struct Parts {
  uint32_t high[kCount], low[kCount];
};

// `high`: x rounded to the 11 bits of tf32, ties away from zero. What is left has at most 12 bits,
// of which the unit reads 11: rounding them too would err by as much, the other way. In integers,
// as the conversion of PTX looks out for NaN and infinity, 4 instructions each time: of a NaN that
// all bits are set in, `high` is 0, and `low` is NaN.
PTX_FN void split(float x, uint32_t* high, uint32_t* low) {
  *high = (std::bit_cast<uint32_t>(x) + 0x1000u) & 0xFFFFE000u;
  *low = std::bit_cast<uint32_t>(x - std::bit_cast<float>(*high));
}

template <int kCount>
PTX_FN Parts<kCount> split_words(const uint32_t (&words)[kCount]) {
  Parts<kCount> parts;
#pragma unroll
  for (int i = 0; i < kCount; ++i)
    split(std::bit_cast<float>(words[i]), &parts.high[i], &parts.low[i]);
  return parts;
}

// Steps of 8 that the matrix unit adds up by itself.
constexpr int kUnitSteps = 2;

// d += a b. Summed from zero, small products first, and then added to d here: the unit cuts off
// digits where an addition rounds, and a long chain of cuts would drift towards zero.
PTX_FN void multiply_parts(const Parts<4> (&a)[kUnitSteps], const Parts<2> (&b)[kUnitSteps],
                           float (&d)[4]) {
  float sum[4] = {};
#pragma unroll
  for (int i = 0; i < kUnitSteps; ++i) {
    ptx::mma_m16n8k8_tf32(sum, a[i].low, b[i].high);
    ptx::mma_m16n8k8_tf32(sum, a[i].high, b[i].low);
  }
#pragma unroll
  for (int i = 0; i < kUnitSteps; ++i) ptx::mma_m16n8k8_tf32(sum, a[i].high, b[i].high);
#pragma unroll
  for (int i = 0; i < 4; ++i) d[i] += sum[i];
}

// Rows are read again for every product. ldmatrix moves 16 bytes of a row to four lanes: an element
// each.
template <int kDepth>
struct Float32Rows {
  using Layout = TileLayout<kDepth, 4>;
  uint32_t at;

  PTX_FN void set(uint32_t tile, int first_row, int lane) {
    at = tile + Layout::chunk(first_row + lane % 16, lane / 16);
  }
};

// s += a bT, as in matmul.cuh.
template <std::same_as<Float32> Element, int kDepth, int kRowFragments, int kFragments>
PTX_FN void multiply_rows(const Float32Rows<kDepth>& a, uint32_t b, int lane,
                          Accumulator<kRowFragments, kFragments>& s) {
  using Layout = TileLayout<kDepth, 4>;
  const uint32_t first = b + Layout::chunk(lane % 8, lane / 8);
#pragma unroll 1
  for (int k = 0; k < kDepth / 8; k += kUnitSteps) {
    Parts<4> rows[kRowFragments][kUnitSteps];
#pragma unroll
    for (int m = 0; m < kRowFragments; ++m)
#pragma unroll
      for (int i = 0; i < kUnitSteps; ++i) {
        uint32_t words[4];
        ptx::ldmatrix_x4(words, Layout::skip(a.at, 2 * (k + i)) + Layout::bytes(16 * m));
        rows[m][i] = split_words(words);
      }
#pragma unroll
    for (int j = 0; j < kFragments; ++j) {
      static_assert(kUnitSteps == 2, "the four matrices of a load");
      uint32_t words[4];
      ptx::ldmatrix_x4(words, Layout::skip(first, 2 * k) + Layout::bytes(8 * j));
      const Parts<2> columns[kUnitSteps] = {split_words({words[0], words[1]}),
                                            split_words({words[2], words[3]})};
#pragma unroll
      for (int m = 0; m < kRowFragments; ++m) multiply_parts(rows[m], columns, s[m][j]);
    }
  }
}

// o += p b, as in matmul.cuh, the weights not rounded. Which rows of b meet in a step is free, as
// long as both operands agree: a lane brings those whose weights it holds, and no two lanes of a
// load meet in a bank.
template <std::same_as<Float32> Element, int kRowFragments, int kFragments, int kColumnFragments>
PTX_FN void multiply_weights(const Accumulator<kRowFragments, kFragments>& p, uint32_t b, int lane,
                             Accumulator<kRowFragments, kColumnFragments>& o) {
  using Layout = TileLayout<8 * kColumnFragments, 4>;
#pragma unroll
  for (int k = 0; k < kFragments; k += kUnitSteps) {
    Parts<4> weights[kRowFragments][kUnitSteps];
#pragma unroll
    for (int m = 0; m < kRowFragments; ++m)
#pragma unroll
      for (int i = 0; i < 4 * kUnitSteps; ++i) {
        Parts<4>& parts = weights[m][i / 4];
        split(p[m][k + i / 4][i % 2 * 2 + i % 4 / 2], &parts.high[i % 4], &parts.low[i % 4]);
      }
#pragma unroll
    for (int j = 0; j < kColumnFragments; ++j) {
      Parts<2> columns[kUnitSteps];
#pragma unroll
      for (int i = 0; i < 2 * kUnitSteps; ++i) {
        const int row = 8 * (k + i / 2) + fragment_column(lane) + i % 2;
        const float x = ptx::ld_shared<float>(b + Layout::element(row, 8 * j + lane / 4));
        split(x, &columns[i / 2].high[i % 2], &columns[i / 2].low[i % 2]);
      }
#pragma unroll
      for (int m = 0; m < kRowFragments; ++m) multiply_parts(weights[m], columns, o[m][j]);
    }
  }
}

// The left operand of an element's products.
template <class Element, int kDepth, int kRowFragments, bool kIsKept>
using LeftOperand = std::conditional_t<std::same_as<Element, Float32>, Float32Rows<kDepth>,
                                       RowOperand<kDepth, kRowFragments, kIsKept>>;

}  // namespace attnext::cuda::mma
