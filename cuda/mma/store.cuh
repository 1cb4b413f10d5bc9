// How a warp's finished rows leave: sinks joined, weights normalised, converted, and their lse.
#pragma once

#include "mma/dropout.cuh"

namespace attnext::cuda::mma {

struct FinishedRow {
  float factor;  // out = factor * accumulated p v
  float lse;
  bool is_empty;  // without a maximum: what was accumulated means nothing
};

// `row_max_log2`, `row_sum`: of the whole row, the same in its four lanes.
PTX_FN FinishedRow finish(const Group& g, Position at, float row_max_log2, float row_sum,
                          int lane) {
  const Problem& p = *g.problem;
  const float sink = p.sinks ? static_cast<float>(p.sinks[at.head] * kLog2E) : negative_infinity();
  const RowResult<float> r =
      finish_row<FloatMath>(row_max_log2, row_sum, sink, static_cast<float>(kLn2));
  FinishedRow row = {r.factor * kept_factor(p.dropout), r.lse, row_max_log2 == negative_infinity()};
  // All lanes of the warp vote, whether or not their row needs it.
  if (!ptx::warp_any(row.is_empty)) return row;
  const bool mine = row.is_empty && has_visible_key(g, at, lane);
  const uint32_t voters = ptx::ballot(mine) >> (lane & ~3) & 0xF;
  if (!row.is_empty) return row;
  row.factor = empty_row_factor<float>(voters != 0);
  if (voters != 0) row.lse = row.factor;
  return row;
}

// Two neighbouring elements of a row at once where memory allows.
PTX_FN void store_pair(const TensorView& t, bool has_pairs, int64_t row, int column, int columns,
                       float low, float high) {
  if (has_pairs && column + 1 < columns) {
    const DType dtype = dtype_of(t);
    char* const at = static_cast<char*>(t.data) + (row + column) * size_of(dtype);
    if (dtype == DType::kFloat32)
      return ptx::st_global(reinterpret_cast<float2*>(at), make_float2(low, high));
    const bool is_half = dtype == DType::kFloat16;
    return ptx::st_global(reinterpret_cast<uint32_t*>(at),
                          is_half ? ptx::pack_f16(low, high) : ptx::pack_bf16(low, high));
  }
  if (column < columns) write_float(t, row + column * t.strides[3], low);
  if (column + 1 < columns) write_float(t, row + (column + 1) * t.strides[3], high);
}

// Whether pairs of elements are aligned in every row.
inline bool has_pairs(const TensorView& t) {
  const bool is_narrow =
      t.dtype == ATTNEXT_FLOAT16 || t.dtype == ATTNEXT_BFLOAT16 || t.dtype == ATTNEXT_FLOAT32;
  const uintptr_t bytes = 2 * static_cast<uintptr_t>(size_of(dtype_of(t)));
  return is_narrow && reinterpret_cast<uintptr_t>(t.data) % bytes == 0 && t.strides[0] % 2 == 0 &&
         t.strides[1] % 2 == 0 && t.strides[2] % 2 == 0 && t.strides[3] == 1;
}

}  // namespace attnext::cuda::mma
