// Where the gradient of a bias is summed. A bias that differs by query and key gets its tiles
// directly; one that is broadcast over keys is a sum per row, over queries a sum per key: both
// O(seqlen), finished at the end in order.
#pragma once

#include "cpu/tile/gradient.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

enum class BiasSum { kNone, kDense, kPerRow, kPerKey };

ATTNEXT_HD BiasSum bias_sum_of(const BackwardParams& params) {
  if (!is_present(params.dbias)) return BiasSum::kNone;
  if (params.dbias.shape[3] == 1) return BiasSum::kPerRow;
  return params.dbias.shape[2] == 1 ? BiasSum::kPerKey : BiasSum::kDense;
}

// The strides of `t` with those of axes of size 1 taken as 0: indices then run over the broadcast
// shape.
ATTNEXT_HD TensorView broadcast_view(TensorView t) {
  for (int axis = 0; axis < 4; ++axis)
    if (t.shape[axis] == 1) t.strides[axis] = 0;
  return t;
}

// dbias[query, key] += ds[key][lane]; `sums` is a broadcast view of accumulators. Turned around
// block by block, so that rows are read and written in whole vectors.
template <class A>
static void add_bias_tile(const Group& g, const Panel<A>& panel, const KeyTile& tile, const A* ds,
                          const TensorView& sums) {
  const int lanes = lanes_of(panel);
  const int64_t num_keys = tile.keys.end - tile.keys.begin, stride = sums.strides[3];
  const int64_t num_rows = panel.rows.end - panel.rows.begin;
  for (int64_t first = 0; first < num_rows; first += kLanes<A>)
    for (int64_t key = 0; key < num_keys; key += kLanes<A>) {
      const int64_t columns = min_of(kLanes<A>, num_keys - key);
      Vec<A> block[kLanes<A>];
      for (int64_t i = 0; i < kLanes<A>; ++i)
        block[i] = i < columns ? load<A>(ds + (key + i) * lanes + first) : Vec<A>{};
      transpose<A>(block);
      for (int64_t lane = 0; lane < min_of(kLanes<A>, num_rows - first); ++lane) {
        A* out = reinterpret_cast<A*>(dense_pointer(g, sums, panel.rows.begin + first + lane)) +
                 (tile.keys.begin + key) * stride;
        if (stride == 1 && columns == kLanes<A>) {
          store_unaligned<A>(out, load_unaligned<A>(out) + block[lane]);
        } else {
          for (int64_t i = 0; i < columns; ++i) out[i * stride] += block[lane][i];
        }
      }
    }
}

// sums[head of the group][key of the chunk] += sum over the panel's rows of ds.
template <class A>
static void add_bias_keys(const Group& g, const Panel<A>& panel, const KeyTile& tile, const A* ds,
                          int64_t chunk_begin, A* sums) {
  const int lanes = lanes_of(panel);
  const int64_t group_size = g.problem->group_size;
  for (int64_t key = tile.keys.begin; key < tile.keys.end; ++key)
    for (int64_t row = panel.rows.begin; row < panel.rows.end; ++row)
      sums[row % group_size * kLongChunkKeys + key - chunk_begin] +=
          ds[(key - tile.keys.begin) * lanes + row - panel.rows.begin];
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
