// The forward pass of a block: a tile of query rows against all keys they see, or against one split
// of them (FlashAttention-2, Dao 2023, arXiv:2307.08691).
#pragma once

#include "mma/float32.cuh"
#include "mma/load.cuh"
#include "mma/pipeline.cuh"
#include "mma/place.cuh"
#include "mma/store.cuh"
#include "mma/tile_shape.h"

namespace attnext::cuda::mma {

struct ForwardArguments {
  ForwardParams params;
  RowAccess q_access, k_access, v_access;
  bool out_has_pairs;
  int64_t items;   // blocks for each (sequence, key head)
  int64_t splits;  // of the longest sequence; 0: none is split
  // What splits leave behind, [batch, num_heads_kv, splits, partial_rows]: the base of the
  // weights and their sum; and the o accumulated, [.., partial_rows, head_dim_v].
  float2* states;
  float* partials;
  int64_t partial_rows;
};

// A sequence of few rows and many keys is split, whatever else the batch holds.
ATTNEXT_HD int64_t splits_of(const Mask& mask, int64_t num_rows) {
  return num_rows > 0 && num_rows <= kSplitRows && mask.seqlen_k > kSplitKeys
             ? divide_up(mask.seqlen_k, kSplitKeys)
             : 1;
}

// Which of the two kernels a sequence takes, whatever else the batch holds.
ATTNEXT_HD bool has_few_rows(int64_t num_rows) { return num_rows <= kFewRows; }

template <class Shape>
struct ForwardMemory {
  using Layout = TileLayout<Shape::kHeadDim, Shape::kElementBytes>;
  // Stages of k and v follow each other.
  static constexpr uint32_t kTileBytes = Layout::bytes(Shape::kTileK), kQ = 0,
                            kStages = Layout::bytes(Shape::kTileQ),
                            kNormsQ = kStages + Shape::kStages * 2 * kTileBytes,
                            kNormsK = kNormsQ + 4 * Shape::kTileQ,
                            kScales = kNormsK + 4 * Shape::kTileK,
                            kPlace = kScales + 4 * Shape::kTileQ, kBytes = kPlace + kPlaceBytes;
  static_assert(kSplitKeys % Shape::kTileK == 0, "a split must end with a tile");
  static_assert(kBytes <= bytes_of(Shape::kBudget), "a block must fit the architecture's memory");
};

// One block's part of the problem.
struct ForwardItem {
  bool is_there;
  int64_t first_row;  // of the tile
  Span keys;          // to look at: from the beginning of a tile on
};

template <class Shape>
PTX_FN ForwardItem forward_item(const Problem& p, const Group& g, int64_t index) {
  const int64_t splits = splits_of(g.mask, g.num_rows);
  const int64_t tiles = divide_up(rows_in_memory(p, g), Shape::kTileQ);
  if (index >= (splits > 1 ? splits : tiles)) return {false, 0, {0, 0}};
  // The last rows of a causal sequence have the most keys: first, so that the end is shared out.
  const int64_t first = splits > 1 ? 0 : (tiles - 1 - index) * Shape::kTileQ;
  if (first >= g.num_rows) return {true, first, {0, 0}};
  const Span reachable =
      reachable_keys(g.mask, queries_of(g, {first, min_of(first + Shape::kTileQ, g.num_rows)}));
  const Span keys = {reachable.begin / Shape::kTileK * Shape::kTileK, reachable.end};
  if (splits == 1) return {true, first, keys};
  return {true,
          first,
          {max_of(keys.begin, index * kSplitKeys), min_of(keys.end, (index + 1) * kSplitKeys)}};
}

// A block on its way through the keys. It keeps little: what a group is gets read again for every
// tile, as two fragments of rows at head_dim 128 leave few registers for anything but sums.
template <class Element, class Shape>
struct ForwardBlock {
  using Memory = ForwardMemory<Shape>;
  static constexpr int kRowFragments = Shape::kRowFragments, kTileK = Shape::kTileK,
                       kHeadDim = Shape::kHeadDim, kFragments = Shape::kWarpKeys / 8;
  using Scores = Accumulator<kRowFragments, kFragments>;
  using Sums = Accumulator<kRowFragments, kHeadDim / 8>;
  using Queries = LeftOperand<Element, kHeadDim, kRowFragments, Shape::kKeepsRows>;

  using Streams = StreamPair<Element, Shape::kThreads, kTileK, kHeadDim>;

  const ForwardArguments& a;
  bool is_scaled;  // scores are multiplied by their scale before the softmax

  // Through a shuffle, so that what follows from it is found again where it is needed rather than
  // kept in registers across the loop: that spilled 250 bytes at head_dim 128.
  PTX_FN static int thread() { return static_cast<int>(ptx::warp_index()) * 32 + lane(); }
  PTX_FN static int lane() { return static_cast<int>(ptx::lane_index()); }
  // Of the tile: the warp's first row and key.
  PTX_FN static int warp_row() {
    return Shape::kSharesKeys ? 0 : static_cast<int>(ptx::warp_index()) * Shape::kWarpRows;
  }
  PTX_FN static int warp_key() {
    return Shape::kSharesKeys ? static_cast<int>(ptx::warp_index()) * Shape::kWarpKeys : 0;
  }
  PTX_FN static BlockPlace place() { return place_at(ptx::dyn_smem() + Memory::kPlace); }
  PTX_FN Group group() const {
    const BlockPlace at = place();
    return group_of(a.params.problem, at.sequence, at.head_kv);
  }
  PTX_FN static int64_t first_row() { return int64_t{place().tile} * Shape::kTileQ; }
  PTX_FN bool has_cosine() const {
    return Shape::kHasOptions && a.params.problem.score == Score::kCosine;
  }

  PTX_FN void load_queries() const {
    const Problem& p = a.params.problem;
    load_query_rows<Element, Shape::kThreads, Shape::kTileQ, kHeadDim>(
        p, group(), p.q, a.q_access, ptx::dyn_smem() + Memory::kQ, first_row(), thread());
    ptx::cp_async_commit();
  }

  // Of the tile's rows, to base 2: kept in shared memory, as registers are for sums.
  PTX_FN void store_scales() const {
    const Group g = group();
    for (int i = thread(); i < Shape::kTileQ; i += Shape::kThreads) {
      const int64_t row = min_of(first_row() + i, g.num_rows - 1);
      ptx::st_shared(ptx::dyn_smem() + Memory::kScales + 4 * static_cast<uint32_t>(i),
                     static_cast<float>(a.params.problem.scale[position_of(g, row).head] * kLog2E));
    }
  }
  PTX_FN void load_scales(float (&scale)[kRowFragments][2]) const {
#pragma unroll
    for (int m = 0; m < kRowFragments; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        scale[m][half] = ptx::ld_shared<float>(
            ptx::dyn_smem() + Memory::kScales +
            4 * static_cast<uint32_t>(warp_row() + 16 * m + fragment_row(lane(), half)));
  }

  // Where the keys of a tile are; its values follow them.
  PTX_FN static uint32_t stage_of(int32_t key_tile) {
    return ptx::dyn_smem() + Memory::kStages +
           stage_offset<Shape::kStages>(key_tile, 2 * Memory::kTileBytes);
  }
  // The warp's keys among them.
  PTX_FN static uint32_t keys_of(int32_t key_tile) {
    return stage_of(key_tile) + static_cast<uint32_t>(Memory::Layout::bytes(warp_key()));
  }

  // Keys and values on their way, from tile `first` on.
  PTX_FN void start_streams(int32_t first, Streams& streams) const {
    const Problem& p = a.params.problem;
    const Group g = group();
    const int64_t begin = int64_t{first} * kTileK;
    streams.first.start(p.k, a.k_access, key_offset(p, g, p.k, begin), thread());
    streams.second.start(p.v, a.v_access, key_offset(p, g, p.v, begin), thread());
    for (int i = 0; i < Shape::kStages; ++i)
      Streams::clear(a.k_access, a.v_access, stage_of(i), thread());
  }
  PTX_FN void load_tile(int32_t key_tile, Streams& streams) const {
    const uint32_t stage = stage_of(key_tile);
    if (key_tile < place().streams) {
      streams.load(a.k_access, a.v_access, stage, thread());
    } else {
      const Problem& p = a.params.problem;
      const Group g = group();
      const int64_t begin = int64_t{key_tile} * kTileK;
      load_key_rows<Element, Shape::kThreads, kTileK, kHeadDim>(p, g, p.k, row_by_row(a.k_access),
                                                                stage, begin, thread());
      load_key_rows<Element, Shape::kThreads, kTileK, kHeadDim>(
          p, g, p.v, row_by_row(a.v_access), stage + Memory::kTileBytes, begin, thread());
    }
    ptx::cp_async_commit();
  }

  PTX_FN void invert_all_norms(uint32_t stage, bool is_first) const {
    const uint32_t shared = ptx::dyn_smem();
    if (is_first)
      invert_norms<Element, Shape::kThreads, Shape::kTileQ, kHeadDim>(shared + Memory::kQ, thread(),
                                                                      shared + Memory::kNormsQ);
    invert_norms<Element, Shape::kThreads, kTileK, kHeadDim>(stage, thread(),
                                                             shared + Memory::kNormsK);
    ptx::block_sync();  // the norms are there
  }

  // The warp's rows, and its keys of a tile.
  PTX_FN Span rows_of(const Group& g) const {
    const int64_t first = first_row() + warp_row();
    return {first, min_of(first + Shape::kWarpRows, g.num_rows)};
  }
  PTX_FN static Span keys_at(int32_t key_tile) {
    const int64_t begin = int64_t{key_tile} * kTileK + warp_key();
    return {begin, begin + Shape::kWarpKeys};
  }
  PTX_FN TileKind classify(int32_t key_tile) const {
    const Group g = group();
    const Span rows = rows_of(g);
    return rows.begin < rows.end ? classify_tile(g.mask, queries_of(g, rows), keys_at(key_tile))
                                 : TileKind::kSkip;
  }
  PTX_FN WarpTile tile_of(const Group& g, int32_t key_tile, TileKind kind) const {
    const Span keys = keys_at(key_tile);
    return {rows_of(g).begin, {keys.begin, min_of(keys.end, g.mask.seqlen_k)}, kind, lane()};
  }

  // The tiles of which the warp's rows see all of the warp's keys: most.
  PTX_FN TileSpan full_tiles() const {
    const Group g = group();
    const Span rows = rows_of(g);
    if (rows.begin >= rows.end) return {0, 0};
    const Span queries = queries_of(g, rows);
    const int64_t begin = visible_keys(g.mask, queries.end - 1).begin,
                  end = visible_keys(g.mask, queries.begin).end - warp_key() - Shape::kWarpKeys;
    return {static_cast<int32_t>(divide_up(max_of(begin - warp_key(), 0), kTileK)),
            end < 0 ? 0 : static_cast<int32_t>(end / kTileK + 1)};
  }

  // s <- the scores of a tile; `factor` makes them ones to base 2.
  PTX_FN void score(const Queries& q, int32_t key_tile, TileKind kind, Scores& s,
                    float (&factor)[kRowFragments][2]) const {
    clear(s);
    multiply_rows<Element>(q, keys_of(key_tile), lane(), s);
    load_scales(factor);
    if (!Shape::kHasOptions && kind == TileKind::kFull) return;
    const uint32_t shared = ptx::dyn_smem();
    const Group g = group();
    const WarpTile tile = tile_of(g, key_tile, kind);
    if (has_cosine())
      normalise_scores(shared + Memory::kNormsQ,
                       shared + Memory::kNormsK + 4 * static_cast<uint32_t>(warp_key()), warp_row(),
                       lane(), s);
    if constexpr (Shape::kHasOptions)
      modify_scores(a.params.problem, g, tile, is_scaled, factor, s);
    else
      mask_scores(g, tile, s);
  }

  PTX_FN void drop(int32_t key_tile, TileKind kind, Scores& s) const {
    const Problem& p = a.params.problem;
    const Group g = group();
    for_kept<kRowFragments, kFragments>(p, g, tile_of(g, key_tile, kind),
                                        [&](int m, int j, int i, bool is_kept) {
                                          if (!is_kept) s[m][j][i] = 0;
                                        });
  }

  // All keys of `keys`, a tile at a time.
  PTX_FN void run(Span keys, RowState<kRowFragments>& state, Sums& o) const {
    if (keys.begin >= keys.end) return;
    constexpr bool kIsAhead = Shape::kStages > 1;
    const auto first = static_cast<int32_t>(keys.begin / kTileK),
               last = static_cast<int32_t>((keys.end - 1) / kTileK);
    load_queries();
    Streams streams;
    if (first < place().streams) start_streams(first, streams);
    if constexpr (kIsAhead) load_tile(first, streams);
    store_scales();
    ptx::cp_async_wait<kIsAhead>();
    ptx::block_sync();  // q is there
    const TileSpan full = full_tiles();
    Queries q;
    q.set(ptx::dyn_smem() + Memory::kQ, warp_row(), lane());
    walk_tiles<Shape::kStages>(
        first, last, [&](int32_t tile) { load_tile(tile, streams); },
        [&](int32_t tile) { multiply_tile(q, tile, tile == first, full, state, o); });
  }

  PTX_FN void multiply_tile(const Queries& q, int32_t key_tile, bool is_first, TileSpan full,
                            RowState<kRowFragments>& state, Sums& o) const {
    if (has_cosine()) invert_all_norms(stage_of(key_tile), is_first);
    const TileKind kind = full.has(key_tile) ? TileKind::kFull : classify(key_tile);
    if (kind == TileKind::kSkip) return;
    Scores s;
    soften(s, state, o,
           [&](float (&factor)[kRowFragments][2]) { score(q, key_tile, kind, s, factor); });
    if (Shape::kHasOptions && a.params.problem.dropout.probability > 0) drop(key_tile, kind, s);
    multiply_weights<Element>(s, keys_of(key_tile) + Memory::kTileBytes, lane(), o);
  }
};

// By all threads of the block.
template <class Element, class Shape>
PTX_FN ForwardBlock<Element, Shape> forward_block(const ForwardArguments& a, const Group& g,
                                                  int64_t first_row) {
  const bool has_streams =
      a.k_access.has_streams && a.v_access.has_streams && a.params.problem.page_size == 0;
  keep_place(ptx::dyn_smem() + ForwardMemory<Shape>::kPlace,
             {static_cast<int32_t>(g.sequence), static_cast<int32_t>(g.head_kv),
              static_cast<int32_t>(first_row / Shape::kTileQ),
              has_streams ? static_cast<int32_t>(g.mask.seqlen_k / Shape::kTileK) : 0});
  return {a, Shape::kHasOptions && scales_scores(a.params.problem, g)};
}

}  // namespace attnext::cuda::mma
