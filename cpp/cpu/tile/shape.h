// How large tiles are, per instruction set: the one place of tuning numbers.
#pragma once

#include "cpu/simd/vec.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

// A matrix tile holds kTileRows x kPanelVectors accumulators in registers: 8 x 3 of 32, 4 x 3 of
// 16, leaving room for the vector operands and one broadcast.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kTileRows = 8;
#else
constexpr int kTileRows = 4;
#endif
constexpr int kPanelVectors = 3;

// Keys of a tile of scores. Fewer accumulators suffice for the multiply-adds, and what becomes of
// the scores then overlaps better with the next tile: on Zen 4, 4 beats 8 by 1.2 points of peak in
// bfloat16 and under a mask, and is as good for plain float32.
constexpr int kScoreKeys = 4;

// The tile of dk and dv, whose lanes are head dimensions: as many accumulators, but more of them
// side by side, for each takes a broadcast weight. On Zen 4, 4 x 4 beats 8 x 2 by a point of peak.
// Slopes that need the key's row keep it in as many registers again.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kGradientKeys = 4, kGradientVectors = 4, kSlopeVectors = 2;
#else
constexpr int kGradientKeys = 4, kGradientVectors = 2, kSlopeVectors = 1;
#endif

// Whether half a vector takes half the time: rows of 40 are then two vectors and a half. So it is
// on Zen 4, and on no processor that has AVX-512 it takes more than a whole one.
#if defined(__AVX512F__)
constexpr bool kHasHalves = true;
#else
constexpr bool kHasHalves = false;
#endif

// Query rows side by side in lanes, and how many such panels share one pass over a key tile. AVX2,
// whose panels are half as wide, gains nothing from 8 of them, and its backward loses 1 to 5
// points.
template <class A>
constexpr int kPanelLanes = kPanelVectors * kLanes<A>;
constexpr int kMaxPanels = 4;
template <class A>
constexpr int kTileQ = kMaxPanels * kPanelLanes<A>;

// Forward has twice as many share a pass, until a call's end is near (forward_plan.h): keys are
// then fetched, and 16-bit ones converted, half as often (on Zen 4 0.8 points of peak in
// float32, 1.9 in float16).
constexpr int kManyPanels = 8;

// Keys a score tile covers. Forward: o is read and written once per tile, and rows of a mask or
// bias are read in longer runs: 256 beats 128 by 0.6 points of peak on Zen 4 (6 under a mask), 512
// is no better. Few rows read ahead by a tile, which has to stay near. Backward: p and ds of a
// whole query block lie in L2 beside the chunk's gradients (64 beats 128 by 2 points).
constexpr int kTileK = 256;
constexpr int kFewTileK = 128;
// Longer tiles are for bfloat16 in pairs, half as large and half the work, and beside a bias, whose
// rows are read, and those of its gradient written, in longer runs (3 % of backward).
constexpr int kGradientTileK = 64, kLongGradientTileK = 128;

// Where a rule cuts a backward tile, so many keys at a time meet the rows that see some of them.
constexpr int kGradientStepK = 8;

// Keys a split takes when there are too few query rows to share out (decoding). Fixed positions:
// the bits of a result must not depend on how many cores there are.
constexpr int kSplitKeys = 1024;

// Keys whose gradients one backward item owns. The queries are packed and dq is added to once per
// chunk: on Zen 4 a long one gains a point of peak, until its accumulators are too far from L2
// (2048 keys lose 3 at head_dim 128; of rows of 1024 bytes, as of float32 at 256, 1024 keys
// gain 1.1, and lose 1.4 where a rule cuts them) or too few items are left to share out: twice as
// many where a rule makes some more work than others.
constexpr int kChunkKeys = 512, kLongChunkKeys = 1024;
ATTNEXT_HD int64_t chunk_keys(int64_t keys_of_heads, int64_t row_bytes, bool has_rule) {
  constexpr int kItemsToShare = 8;
  const int64_t longest_row = has_rule ? 512 : 1024;
  const int64_t items = has_rule ? 2 * kItemsToShare : kItemsToShare;
  const bool is_long = row_bytes <= longest_row && keys_of_heads >= items * kLongChunkKeys;
  return is_long ? kLongChunkKeys : kChunkKeys;
}

// kWidth wide tiles for the bulk of `count`, then pairs, then one: widths between them would be
// most of the library for the last few rows of a sequence.
template <int kWidth, class F>
ATTNEXT_HD void for_tiles(int64_t count, F&& visit, int64_t begin = 0) {
  for (; begin + kWidth <= count; begin += kWidth) visit(Int<kWidth>{}, begin);
  if constexpr (kWidth > 1) {
    if (begin < count) for_tiles<(kWidth > 2 ? 2 : 1)>(count, visit, begin);
  }
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
