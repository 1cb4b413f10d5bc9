// Rows that are read next, on their way to L2 while the products of the present ones are under way.
// They are asked for one at a time, by what finishes a tile of scores: a burst of prefetches waits
// for memory just as the reads do that it is to spare.
#pragma once

#include "cpu/tile/matmul.h"
#include "cpu/tile/rows.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

struct RowsAhead {
  const char* row;
  int64_t count;
  int64_t stride, bytes;  // of a row
  int64_t at_once;
};

ATTNEXT_HD void fetch_rows(RowsAhead* rows) {
  constexpr int64_t kLine = 64;
  constexpr int kForReading = 0, kIntoL2 = 2;
  const int64_t count = min_of(rows->at_once, rows->count);
  for (int64_t i = 0; i < count; ++i, rows->row += rows->stride)
    for (int64_t at = 0; at < rows->bytes; at += kLine)
      __builtin_prefetch(rows->row + at, kForReading, kIntoL2);
  rows->count -= count;
}

// All of them in so many times.
ATTNEXT_HD RowsAhead spread(RowsAhead rows, int64_t times) {
  rows.at_once = divide_up(rows.count, max_of(times, 1));
  return rows;
}

// Rows `keys` of k or v. None where rows are not a piece of memory each, or so short that asking
// would cost more than it spares (5 % at head_dim 8).
ATTNEXT_HD RowsAhead keys_ahead(const Group& g, const TensorView& t, int64_t elements, Span keys) {
  constexpr int64_t kLeastBytes = 128;
  const int64_t size = size_of(dtype_of(t));
  if (keys.begin >= keys.end || g.problem->page_size > 0 || t.strides[3] != 1) return {};
  if (elements * size < kLeastBytes) return {};
  return {key_pointer(g, t, keys.begin), keys.end - keys.begin, t.strides[2] * size,
          elements * size, 0};
}

// Likewise rows of q, out, dout or dq.
ATTNEXT_HD RowsAhead rows_ahead(const Group& g, const TensorView& t, int64_t elements, Span rows) {
  if (rows.begin >= rows.end || g.problem->group_size > 1 || t.strides[3] != 1) return {};
  const int64_t size = size_of(dtype_of(t));
  return {row_pointer(g, t, rows.begin), rows.end - rows.begin, t.strides[2] * size,
          elements * size, 0};
}

// Of rows as a product reads them.
template <class E>
ATTNEXT_HD RowsAhead rows_ahead(RowBlock<E> rows, int64_t operands, int64_t count) {
  const auto size = static_cast<int64_t>(sizeof(E));
  return {reinterpret_cast<const char*>(rows.data), count, rows.stride * size, operands * size, 0};
}

// Of a buffer.
template <class A>
ATTNEXT_HD RowsAhead buffer_ahead(const A* data, int64_t width, int64_t count) {
  const auto bytes = width * static_cast<int64_t>(sizeof(A));
  return {reinterpret_cast<const char*>(data), count, bytes, bytes, 0};
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
