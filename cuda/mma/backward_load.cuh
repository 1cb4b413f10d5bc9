// What a block of backward brings into shared memory: the rows it owns, and those it walks along,
// tile after tile.
#pragma once

#include "mma/gradient.cuh"
#include "mma/load.cuh"
#include "mma/pipeline.cuh"
#include "mma/place.cuh"
#include "mma/tile_shape.h"

namespace attnext::cuda::mma {

// In shared memory: q and dout, or k and v, of what the block owns; stages of the others; their lse
// and delta, if they are queries, in stages too; inverse norms.
template <class Shape>
struct BackwardMemory {
  using Layout = TileLayout<Shape::kHeadDim, Shape::kElementBytes>;
  static constexpr uint32_t kOwnedBytes = Layout::bytes(Shape::kOwned),
                            kWalkedBytes = Layout::bytes(Shape::kWalked),
                            kConstantBytes = 4 * Shape::kWalked;
  static constexpr uint32_t kOwn = 0, kStages = kOwn + 2 * kOwnedBytes,
                            kConstants = kStages + Shape::kStages * 2 * kWalkedBytes,
                            kNormsOwn = kConstants + Shape::kStages * 2 * kConstantBytes,
                            kNormsWalked = kNormsOwn + 4 * Shape::kOwned,
                            kPlace = kNormsWalked + 4 * Shape::kWalked,
                            kTiles = kPlace + kPlaceBytes, kBytes = kTiles + sizeof(TileSpan);
  static_assert(kBytes <= bytes_of(Shape::kBudget), "a block must fit the architecture's memory");
};

template <class Element, class Shape>
struct BackwardLoads {
  using Memory = BackwardMemory<Shape>;
  static constexpr int kOwned = Shape::kOwned, kWalked = Shape::kWalked, kHeadDim = Shape::kHeadDim;
  static constexpr bool kOwnsKeys = Shape::kOwnsKeys;

  // The walked rows on their way; and where the lse and delta of a thread's row in the next tile
  // are, if they are queries.
  struct Streams : StreamPair<Element, Shape::kThreads, kWalked, kHeadDim> {
    int64_t constants = 0;
  };

  const BackwardArguments& a;

  // Where the walk is: tile `tile` of the keys, or of the queries of `head`. The heads of a group
  // come one after the other, so that rows lie at equal distances.
  struct Stop {
    int32_t tile, head;
  };

  PTX_FN static int thread() { return static_cast<int>(ptx::thread_index().x); }
  PTX_FN static int lane() { return static_cast<int>(ptx::lane_index()); }
  // Of what the block owns: the warp's first.
  PTX_FN static int warp_row() { return static_cast<int>(ptx::warp_index()) * Shape::kWarpRows; }
  PTX_FN static BlockPlace place() { return place_at(ptx::dyn_smem() + Memory::kPlace); }
  PTX_FN Group group() const {
    const BlockPlace at = place();
    return group_of(a.params.problem, at.sequence, at.head_kv);
  }
  PTX_FN static int64_t first_owned() { return int64_t{place().tile} * kOwned; }

  template <int kRows>
  PTX_FN void load_rows(const Group& g, RowAccess q, RowAccess dout, uint32_t at,
                        int64_t first_row) const {
    const Problem& p = a.params.problem;
    load_query_rows<Element, Shape::kThreads, kRows, kHeadDim>(p, g, p.q, q, at, first_row,
                                                               thread());
    load_query_rows<Element, Shape::kThreads, kRows, kHeadDim>(
        p, g, a.params.dout, dout, at + Memory::Layout::bytes(kRows), first_row, thread());
  }
  template <int kRows>
  PTX_FN void load_keys(RowAccess k, RowAccess v, uint32_t at, int64_t first_key) const {
    const Problem& p = a.params.problem;
    const Group g = group();
    load_key_rows<Element, Shape::kThreads, kRows, kHeadDim>(p, g, p.k, k, at, first_key, thread());
    load_key_rows<Element, Shape::kThreads, kRows, kHeadDim>(
        p, g, p.v, v, at + Memory::Layout::bytes(kRows), first_key, thread());
  }
  PTX_FN void load_owned() const {
    const uint32_t own = ptx::dyn_smem() + Memory::kOwn;
    if constexpr (kOwnsKeys)
      load_keys<kOwned>(a.k_access, a.v_access, own, first_owned());
    else
      load_rows<kOwned>(group(), a.q_access, a.dout_access, own, first_owned());
    ptx::cp_async_commit();
  }

  // In shared memory, of the walked rows from row `slot` of the stages on: they, and their lse's.
  PTX_FN static uint32_t slot_of_stage(int32_t stop) {
    return stage_offset<Shape::kStages>(stop, kWalked);
  }
  PTX_FN static uint32_t address_of(uint32_t slot) {
    const uint32_t stage = slot / kWalked;
    return ptx::dyn_smem() + Memory::kStages + slot * Memory::Layout::kRowBytes +
           stage * Memory::kWalkedBytes;
  }
  PTX_FN static uint32_t constants_of(uint32_t slot) {
    const uint32_t stage = slot / kWalked;
    return ptx::dyn_smem() + Memory::kConstants + 4 * slot + stage * Memory::kConstantBytes;
  }

  // The tiles of the keys, or of the queries of every head, along which the block walks.
  PTX_FN static TileSpan walked_tiles() {
    return ptx::ld_shared<TileSpan>(ptx::dyn_smem() + Memory::kTiles);
  }
  PTX_FN static Stop next(Stop stop) {
    const TileSpan tiles = walked_tiles();
    return stop.tile + 1 < tiles.end ? Stop{stop.tile + 1, stop.head}
                                     : Stop{tiles.begin, stop.head + 1};
  }

  // The walked rows from a head's first tile on.
  PTX_FN void start_streams(Stop stop, Streams& streams) const {
    const Problem& p = a.params.problem;
    const int64_t begin = int64_t{stop.tile} * kWalked;
    if constexpr (kOwnsKeys) {
      const Group g = head_of_group(group(), stop.head);
      const Position at = {begin, stop.head};
      streams.first.start(p.q, a.q_access, row_offset(p, g, p.q, at), thread());
      streams.second.start(a.params.dout, a.dout_access, row_offset(p, g, a.params.dout, at),
                           thread());
      streams.constants = workspace_row(p, g, {begin + thread(), stop.head});
    } else {
      const Group g = group();
      streams.first.start(p.k, a.k_access, key_offset(p, g, p.k, begin), thread());
      streams.second.start(p.v, a.v_access, key_offset(p, g, p.v, begin), thread());
    }
  }
  // From the end of a head's queries to the next head's.
  PTX_FN void turn_streams(Streams& streams) const {
    const Problem& p = a.params.problem;
    const TileSpan tiles = walked_tiles();
    const int64_t rows = max_of(min_of(tiles.end, place().streams) - tiles.begin, 0) * kWalked;
    streams.first.turn(p.q, a.q_access, rows);
    streams.second.turn(a.params.dout, a.dout_access, rows);
    streams.constants += 1 - rows * p.group_size;
  }
  PTX_FN void clear_stages() const {
    for (int i = 0; i < Shape::kStages; ++i) {
      const uint32_t stage = address_of(slot_of_stage(i));
      if constexpr (kOwnsKeys)
        Streams::clear(a.q_access, a.dout_access, stage, thread());
      else
        Streams::clear(a.k_access, a.v_access, stage, thread());
    }
  }
  // lse and delta of a tile's rows, of which `exists` is the thread's.
  PTX_FN void load_constants(uint32_t to, int64_t from, bool exists) const {
    const uint32_t bytes = exists ? 4 : 0;
    to += 4 * static_cast<uint32_t>(thread());
    ptx::cp_async<4>(to, a.lse_log2 + (exists ? from : 0), bytes);
    ptx::cp_async<4>(to + Memory::kConstantBytes, a.delta + (exists ? from : 0), bytes);
  }
  PTX_FN void load_walked(Stop stop, uint32_t slot, Streams& streams) const {
    const uint32_t stage = address_of(slot);
    const int64_t first = int64_t{stop.tile} * kWalked;
    const bool is_whole = stop.tile < place().streams;
    if constexpr (kOwnsKeys) {
      const Problem& p = a.params.problem;
      const uint32_t constants = constants_of(slot);
      if (is_whole) {
        streams.load(a.q_access, a.dout_access, stage, thread());
        if (thread() < kWalked) load_constants(constants, streams.constants, true);
        streams.constants += kWalked * p.group_size;
      } else {
        const Group g = head_of_group(group(), stop.head);
        load_rows<kWalked>(g, row_by_row(a.q_access), row_by_row(a.dout_access), stage, first);
        const int64_t row = first + thread();
        if (thread() < kWalked)
          load_constants(constants, workspace_row(p, g, {row, stop.head}), row < g.num_rows);
      }
    } else {
      if (is_whole)
        streams.load(a.k_access, a.v_access, stage, thread());
      else
        load_keys<kWalked>(row_by_row(a.k_access), row_by_row(a.v_access), stage, first);
    }
    ptx::cp_async_commit();
  }

  // Of a walk along `tiles` of the keys, or of every head's queries from those of `stop` on: what
  // is owned, and all that comes before the walked tiles themselves.
  PTX_FN void begin_loads(TileSpan tiles, Stop stop, Streams& streams) const {
    if (thread() == 0) ptx::st_shared(ptx::dyn_smem() + Memory::kTiles, tiles);
    load_owned();
    if (tiles.begin >= place().streams) return;
    start_streams(stop, streams);
    clear_stages();
  }
  // Tile `number` of the walk: at `stop`, or the one after it where tiles are loaded ahead.
  PTX_FN void load_next(int32_t number, Stop stop, Streams& streams) const {
    if (Shape::kStages > 1 && number > 0) stop = next(stop);
    if (kOwnsKeys && number > 0 && stop.tile == walked_tiles().begin) turn_streams(streams);
    load_walked(stop, slot_of_stage(number), streams);
  }
};

}  // namespace attnext::cuda::mma
