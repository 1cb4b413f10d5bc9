// What of a dense mask or bias is asked for before it is needed: the rows of a panel are more
// streams than the hardware prefetches.
#pragma once

#include "cpu/tile/panel.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

// All of the pairs that come next, into L2 while these are worked on. Inlined: gcc drops calls of
// functions that only prefetch.
template <class A>
ATTNEXT_HD void prefetch_dense(const Group& g, const Panel<A>& panel, Span keys,
                               const TensorView& t) {
  constexpr int64_t kLine = 64;
  constexpr int kForReading = 0, kIntoL2 = 2;
  const int64_t size = size_of(dtype_of(t));
  if (t.strides[3] != 1) return;
  for (int64_t row = panel.rows.begin; row < panel.rows.end; ++row) {
    const char* p = dense_pointer(g, t, row);
    for (int64_t at = keys.begin * size; at < keys.end * size; at += kLine)
      __builtin_prefetch(p + at, kForReading, kIntoL2);
  }
}

// Where the pairs that come next begin in the rows of each lane; `rows` null: not to be asked for.
struct DenseAhead {
  const char* const* rows;  // [lanes]
  int64_t size;             // bytes of a key's
};

// `lanes`: those of the panel that is worked on, which may be more.
template <class A>
ATTNEXT_HD DenseAhead dense_ahead(const Group& g, const Panel<A>& panel, int64_t key,
                                  const TensorView& t, int64_t lanes, const char** rows) {
  const int64_t size = size_of(dtype_of(t));
  for (int64_t lane = 0; lane < lanes; ++lane) {
    const int64_t from = min_of(lane, lanes_of(panel) - 1);
    rows[lane] = dense_pointer(g, t, panel.head[from], panel.query[from]) + key * size;
  }
  return {rows, size};
}

// Their share of `num_keys` keys from `key` of this tile on. All at once is more than a core has
// misses under way, and it waits: a little at a time takes 3 of 8 ms off what a bias of 2048 x 2048
// takes beside a forward pass on Zen 4.
ATTNEXT_HD void prefetch_ahead(const DenseAhead& ahead, int64_t lanes, int64_t key, int num_keys) {
  constexpr int64_t kLine = 64;
  constexpr int kForReading = 0, kIntoL2 = 2;
  const int64_t line_keys = kLine / ahead.size;
  const char* const* rows = ahead.rows + key % line_keys * lanes / line_keys;
  for (int64_t n = 0; n < num_keys * lanes / line_keys; ++n)
    __builtin_prefetch(rows[n] + key / line_keys * kLine, kForReading, kIntoL2);
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
