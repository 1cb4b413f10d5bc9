// How a warp's finished rows leave: sinks joined, weights normalised, converted, and their lse.
#pragma once

#include "common/finish.cuh"
#include "mma/dropout.cuh"

namespace attnext::cuda::mma {

// `row_max`, `row_sum`: of the whole row, the same in its four lanes.
PTX_FN FinishedRow<float> finish(const Problem& p, const Group& g, Position at, float row_max,
                                 float row_sum, int lane) {
  FinishedRow<float> row = finish_state(p, at.head, row_max, row_sum);
  row.factor *= kept_factor<float>(p.dropout);
  // All lanes of the warp vote, whether or not their row needs it; each looks at every fourth key.
  if (!ptx::warp_any(row.is_empty)) return row;
  const bool mine = row.is_empty && has_visible_key(p, g, at, lane % 4, 4);
  const uint32_t voters = ptx::ballot(mine) >> (lane & ~3) & 0xF;
  if (row.is_empty) finish_empty(voters != 0, &row);
  return row;
}

// Two neighbouring elements of a row at once where memory allows.
PTX_FN void store_pair(const TensorView& t, bool has_pairs, int64_t row, int column, int columns,
                       float low, float high) {
  if (has_pairs && column + 1 < columns) {
    const DType dtype = dtype_of(t);
    char* const at = element_pointer(t, row + column);
    if (dtype == DType::kFloat32)
      return ptx::st_global(reinterpret_cast<float2*>(at), make_float2(low, high));
    const bool is_half = dtype == DType::kFloat16;
    return ptx::st_global(reinterpret_cast<uint32_t*>(at),
                          is_half ? ptx::pack_f16(low, high) : ptx::pack_bf16(low, high));
  }
  if (column < columns) write_element(t, row + column * t.strides[3], low);
  if (column + 1 < columns) write_element(t, row + (column + 1) * t.strides[3], high);
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
