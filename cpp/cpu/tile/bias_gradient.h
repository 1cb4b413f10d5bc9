// Where the gradient of a bias goes. A bias that differs by query and key gets its tiles
// directly; one that is broadcast over keys is a sum per row, over queries a sum per key: both
// O(seqlen), finished at the end in order.
#pragma once

#include "cpu/tile/gradient.h"
#include "cpu/tile/store.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

// Of a gradient that differs by query and key, either each element belongs to one pair of one head,
// and is stored, or heads or sequences share it, and it is added to.
enum class BiasSum { kNone, kPerPair, kShared, kPerRow, kPerKey };

ATTNEXT_HD BiasSum bias_sum_of(const BackwardParams& params) {
  const Problem& p = params.problem;
  const int64_t* shape = params.dbias.shape;
  if (!is_present(params.dbias)) return BiasSum::kNone;
  if (shape[3] == 1) return BiasSum::kPerRow;
  if (shape[2] == 1) return BiasSum::kPerKey;
  const bool is_shared = shape[0] != p.batch || shape[1] != p.num_heads_q;
  return is_shared ? BiasSum::kShared : BiasSum::kPerPair;
}

// The strides of `t` with those of axes of size 1 taken as 0: indices then run over the broadcast
// shape.
ATTNEXT_HD TensorView broadcast_view(TensorView t) {
  for (int axis = 0; axis < 4; ++axis)
    if (t.shape[axis] == 1) t.strides[axis] = 0;
  return t;
}

// dbias[query, key] += ds[key][lane]; `sums` is a broadcast view of accumulators.
template <class A>
static void add_bias_tile(const Group& g, const Panel<A>& panel, const KeyTile& tile, const A* ds,
                          const TensorView& sums) {
  const int64_t stride = sums.strides[3];
  for_rows_of_transposed<A>(
      panel, ds, tile.keys.end - tile.keys.begin,
      [&](int64_t row) {
        return reinterpret_cast<A*>(dense_pointer(g, sums, row)) + tile.keys.begin * stride;
      },
      [&](A* out, int64_t, int64_t first, int64_t columns, Vec<A> x) {
        out += first * stride;
        if (stride == 1 && columns == kLanes<A>)
          return store_unaligned<A>(out, load_unaligned<A>(out) + x);
        for (int64_t i = 0; i < columns; ++i) out[i * stride] += x[i];
      });
}

// What no L2 would hold until it is read again goes past the caches.
constexpr int64_t kStreamedBytes = int64_t{4} << 20;

template <class A>
ATTNEXT_HD bool may_stream(const TensorView& t) {
  const bool is_aligned = reinterpret_cast<uintptr_t>(t.data) % kVectorBytes == 0 &&
                          t.strides[0] % kLanes<A> == 0 && t.strides[1] % kLanes<A> == 0 &&
                          t.strides[2] % kLanes<A> == 0;
  const int64_t bytes = t.shape[0] * t.shape[1] * t.shape[2] * t.shape[3] * size_of(dtype_of(t));
  return kStreamsLines && is_aligned && bytes >= kStreamedBytes;
}

// rows[lane][key] = ds[key][lane] for whole vectors of keys and of lanes.
template <class A>
static void store_bias_blocks(const char* const* rows, int64_t begin, int64_t num_keys, const A* ds,
                              int lanes, bool is_streamed) {
  for (int64_t key = 0; key < num_keys; key += kLanes<A>) {
    Vec<A> block[kLanes<A>];
    ATTNEXT_UNROLL for (int i = 0; i < kLanes<A>; ++i) block[i] = load<A>(ds + (key + i) * lanes);
    transpose<A>(block);
    const auto each = [&](auto&& put) __attribute__((always_inline)) {
      ATTNEXT_UNROLL for (int i = 0; i < kLanes<A>; ++i)
          put(reinterpret_cast<A*>(const_cast<char*>(rows[i])) + begin + key, block[i]);
    };
    if (is_streamed)
      each([](A* to, Vec<A> x) { stream<A>(to, x); });
    else
      each([](A* to, Vec<A> x) { store_unaligned<A>(to, x); });
  }
}

// dbias[query, key] = ds[key][lane], where nothing else is added to it.
template <class A>
static void store_bias_tile(const Group& g, const Panel<A>& panel, const KeyTile& tile, const A* ds,
                            const TensorView& dbias) {
  const int64_t num_keys = tile.keys.end - tile.keys.begin;
  const LaneRows<A> rows =
      lane_rows(panel, dbias, 3, [&](int64_t row) { return dense_pointer(g, dbias, row); });
  const bool is_whole = panel.rows.end - panel.rows.begin == lanes_of(panel) &&
                        num_keys % kLanes<A> == 0 && rows.stride == 1 &&
                        rows.dtype == kAccumulatorDType<A>;
  if (is_whole) {
    const bool is_streamed = may_stream<A>(dbias) && tile.keys.begin % kLanes<A> == 0;
    for (int lane = 0; lane < lanes_of(panel); lane += kLanes<A>)
      store_bias_blocks<A>(rows.row + lane, tile.keys.begin, num_keys, ds + lane, lanes_of(panel),
                           is_streamed);
    return;
  }
  for_rows_of_transposed<A>(
      panel, ds, num_keys, [&](int64_t row) { return dense_pointer(g, dbias, row); },
      [&](char* to, int64_t, int64_t first, int64_t columns, Vec<A> x) {
        store_elements<A>(to, rows.dtype, rows.stride, tile.keys.begin + first, columns, x);
      });
}

// The tile's ds to where they belong, if each pair has a place of its own.
template <class A>
static void put_bias_tile(const Group& g, const Panel<A>& panel, const KeyTile& tile, const A* ds,
                          BiasSum sum, const TensorView& dbias) {
  if (sum == BiasSum::kPerPair) store_bias_tile<A>(g, panel, tile, ds, dbias);
  if (sum == BiasSum::kShared) add_bias_tile<A>(g, panel, tile, ds, dbias);
}

// Zeros for the pairs that a stored gradient has and no tile of the item visits: keys of its chunk
// that a panel does not see (key_tile), and what lies beyond the sequence (`is_last`: no chunk does
// so after this one).
template <class A>
static void clear_unvisited_bias(const Group& g, const TensorView& dbias, Span chunk,
                                 bool is_last) {
  const Problem& p = *g.problem;
  const int64_t end = is_last ? p.seqlen_k : chunk.end;
  const auto clear = [&](int64_t row, Span keys) {
    const int64_t size = size_of(dtype_of(dbias));
    if (keys.begin < keys.end)
      clear_row(dense_pointer(g, dbias, row) + keys.begin * dbias.strides[3] * size, dbias,
                keys.end - keys.begin);
  };
  for (int64_t begin = 0; begin < g.num_rows; begin += kPanelLanes<A>) {
    const Span rows = {begin, min_of(begin + kPanelLanes<A>, g.num_rows)};
    const KeyTile tile = key_tile(g, queries_of(g, rows), chunk);
    const Span seen = tile.kind == TileKind::kSkip ? Span{chunk.begin, chunk.begin} : tile.keys;
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      clear(row, {chunk.begin, seen.begin});
      clear(row, {seen.end, end});
    }
  }
  for (int64_t row = g.num_rows; is_last && row < p.seqlen_q * p.group_size; ++row)
    clear(row, {0, p.seqlen_k});
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
