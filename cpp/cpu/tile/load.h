// How rows of keys and values reach a tile: in place where memory already is what the products
// read, else converted, gathered from pages, or normalised into a buffer.
#pragma once

#include "cpu/tile/matmul.h"
#include "cpu/tile/rows.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

// Padded rows: whole vectors, zeros beyond the row's elements.
enum class Padding { kNone, kZeros };

template <class A>
ATTNEXT_HD bool is_readable_in_place(const Problem& p, const TensorView& t, int64_t row_elements) {
  return dtype_of(t) == kAccumulatorDType<A> && p.page_size == 0 &&
         (t.strides[3] == 1 || row_elements <= 1);
}

// Rows `keys` of `t` (k or v), `row_elements` each. `buffer` holds that many rows of
// round_up(row_elements, kLanes).
template <class A>
static RowBlock<A> load_rows(const Group& g, const TensorView& t, int64_t row_elements, Span keys,
                             Padding padding, A* buffer) {
  if (padding == Padding::kNone && is_readable_in_place<A>(*g.problem, t, row_elements))
    return {reinterpret_cast<const A*>(key_pointer(g, t, keys.begin)), t.strides[2]};
  const int64_t stride = round_up(row_elements, kLanes<A>);
  for (int64_t key = keys.begin; key < keys.end; ++key)
    load_row<A>(key_pointer(g, t, key), dtype_of(t), t.strides[3], row_elements,
                buffer + (key - keys.begin) * stride);
  return {buffer, stride};
}

template <class A>
static RowBlock<A> load_keys(const Group& g, Span keys, Padding padding, A* buffer) {
  const Problem& p = *g.problem;
  if (p.score != Score::kCosine) return load_rows<A>(g, p.k, p.head_dim, keys, padding, buffer);
  const RowBlock<A> rows = load_rows<A>(g, p.k, p.head_dim, keys, Padding::kZeros, buffer);
  for (int64_t i = 0; i < keys.end - keys.begin; ++i)
    normalise_row<A>(buffer + i * rows.stride, rows.stride);
  return rows;
}

template <class A>
static RowBlock<A> load_values(const Group& g, Span keys, Padding padding, A* buffer) {
  return load_rows<A>(g, g.problem->v, g.problem->head_dim_v, keys, padding, buffer);
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
