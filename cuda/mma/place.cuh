// Which part of the problem a block works on: asked for again and again, but not in its loop over
// tiles, and so kept in shared memory, as registers are for sums.
#pragma once

#include <cstdint>

#include "ptx/memory.h"
#include "ptx/thread.h"

namespace attnext::cuda::mma {

struct alignas(16) BlockPlace {
  int32_t sequence, head_kv;
  int32_t tile;     // of the rows of a group, or of the keys, that the block owns
  int32_t streams;  // tiles that it walks along come by streams up to this one, then row by row
};
constexpr uint32_t kPlaceBytes = sizeof(BlockPlace);

PTX_FN BlockPlace place_at(uint32_t address) { return ptx::ld_shared<BlockPlace>(address); }

// Once, by all threads of the block.
PTX_FN void keep_place(uint32_t address, const BlockPlace& place) {
  if (ptx::thread_index().x == 0) ptx::st_shared(address, place);
  ptx::block_sync();
}

}  // namespace attnext::cuda::mma
