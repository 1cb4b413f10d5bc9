// How a block walks along tiles of shared memory: the next one is on its way while one is used.
#pragma once

#include "ptx/async_copy.h"
#include "ptx/thread.h"

namespace attnext::cuda::mma {

// Tiles [begin, end).
struct TileSpan {
  int32_t begin, end;
  PTX_FN bool has(int32_t tile) const { return tile >= begin && tile < end; }
};

// Where tile `tile` lies among stages of `bytes`.
template <int kStages>
PTX_FN uint32_t stage_offset(int32_t tile, uint32_t bytes) {
  return static_cast<uint32_t>(tile) % kStages * bytes;
}

// `use(tile)` for the tiles first .. last in order. `load(tile)` starts a tile's copies into its
// stage and commits them; where there are two stages it has been called for the first. One barrier
// a tile says both that it has come and that nobody reads the one that the next replaces.
template <int kStages, class Load, class Use>
PTX_FN void walk_tiles(int32_t first, int32_t last, Load&& load, Use&& use) {
  constexpr bool kIsAhead = kStages > 1;
#pragma unroll 1
  for (int32_t tile = first; tile <= last; ++tile) {
    if constexpr (!kIsAhead) {
      if (tile > first) ptx::block_sync();  // nobody reads the last tile any more
      load(tile);
    }
    ptx::cp_async_wait<0>();
    ptx::block_sync();
    if (kIsAhead && tile < last) load(tile + 1);
    use(tile);
  }
}

}  // namespace attnext::cuda::mma
