// How do blocks add tiles of dq to one sum? Three ways, of values that a test can add exactly.
#pragma once

#include <ptx/bulk_copy.h>
#include <ptx/memory.h>
#include <ptx/thread.h>

namespace probe {

namespace ptx = attnext::ptx;

enum class AddBy { kElement, kVector, kBulk };

struct GradientTile {
  static constexpr int kRows = 64, kColumns = 128, kThreads = 256;
  static constexpr int kVectors = kRows * kColumns / 4 / kThreads;  // a thread's, of four floats
  static constexpr uint32_t kBytes = kRows * kColumns * 4, kShared = 2 * kBytes;
};

struct AddParams {
  float* sums;  // [heads, tiles, kRows, kColumns], in the order of a tile's threads
  int tiles;
};

// Tile by tile; `buffer` alternates so that one may still be read while the next is written.
PTX_FN void add_by_bulk(float* tile, uint32_t buffer, int thread) {
  using Shape = GradientTile;
  if (thread == 0) ptx::bulk_wait_read<1>();
  ptx::block_sync();
#pragma unroll
  for (int i = 0; i < Shape::kVectors; ++i)
    ptx::st_shared(buffer + (i * Shape::kThreads + thread) * 16, make_float4(1, 1, 1, 1));
  ptx::fence_async_shared();
  ptx::block_sync();
  if (thread != 0) return;
  ptx::bulk_reduce_add(tile, buffer, Shape::kBytes);
  ptx::bulk_commit();
}

template <AddBy kBy>
PTX_FN void add_from_registers(float* tile, int thread) {
  using Shape = GradientTile;
#pragma unroll
  for (int i = 0; i < Shape::kVectors; ++i) {
    float* const at = tile + (i * Shape::kThreads + thread) * 4;
    if constexpr (kBy == AddBy::kVector) {
      ptx::red_add_v4(at, make_float4(1, 1, 1, 1));
    } else {
      for (int e = 0; e < 4; ++e) ptx::red_add(at + e, 1.0f);
    }
  }
}

// Blocks of a head begin at different tiles, as those of a causal pass would.
template <AddBy kBy>
__global__ void __launch_bounds__(GradientTile::kThreads, 2)
    add_gradients(const __grid_constant__ AddParams p) {
  using Shape = GradientTile;
  const int thread = static_cast<int>(ptx::thread_index().x);
  float* const head =
      p.sums + int64_t{ptx::block_index().y} * p.tiles * Shape::kRows * Shape::kColumns;
  for (int i = 0; i < p.tiles; ++i) {
    const int tile = (static_cast<int>(ptx::block_index().x) * 2 + i) % p.tiles;
    float* const at = head + int64_t{tile} * Shape::kRows * Shape::kColumns;
    if constexpr (kBy == AddBy::kBulk)
      add_by_bulk(at, ptx::dyn_smem() + i % 2 * Shape::kBytes, thread);
    else
      add_from_registers<kBy>(at, thread);
  }
  if (kBy == AddBy::kBulk && thread == 0) ptx::bulk_wait<0>();
}

}  // namespace probe
