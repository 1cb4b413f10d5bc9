// A plain forward pass for sm_90a: one warpgroup loads, the others multiply. What is open about it
// is a template parameter, so that experiments.cu can time one choice against another.
#pragma once

#include <cuda.h>
#include <ptx/bulk_copy.h>
#include <ptx/convert.h>
#include <ptx/math.h>
#include <ptx/mbarrier.h>
#include <ptx/memory.h>
#include <ptx/thread.h>
#include <ptx/wgmma.h>

#include <cmath>

#include "hopper_tile.h"

namespace probe {

namespace ptx = attnext::ptx;

// Fences: a poll of a barrier that is complete already stands before the last wait, since ptxas
// otherwise moves that wait above the exponentials, and nothing overlaps. Turns: a warpgroup
// multiplies while the other does its exponentials.
template <int kHeadDim_, int kTileQ_, int kTileK_, bool kFences_, bool kTakesTurns_>
struct Choice {
  static constexpr int kHeadDim = kHeadDim_, kTileQ = kTileQ_, kTileK = kTileK_;
  static constexpr bool kFences = kFences_, kTakesTurns = kTakesTurns_;
  static constexpr int kGroups = kTileQ / 64, kThreads = 128 * (kGroups + 1), kStages = 2;
  static_assert(kGroups == 2 || kGroups == 3);
  // Together what 168 (128) registers a thread at launch come to.
  static constexpr int kLoading = kGroups == 2 ? 24 : 32, kMultiplying = kGroups == 2 ? 240 : 160;
  using TileQ = Tile<kTileQ>;
  using TileK = Tile<kTileK>;
  static constexpr uint32_t kBytesQ = kTileQ * kHeadDim * 2, kBytesK = kTileK * kHeadDim * 2;
  static constexpr uint32_t kBarriers = kBytesQ + 2 * kStages * kBytesK;
  static constexpr uint32_t kShared = 1024 + kBarriers + 8 * (1 + 4 * kStages);
};

struct ForwardParams {
  CUtensorMap q, k, v;  // [heads, seqlen, head_dim], see slab_map
  uint16_t* out;        // [heads, seqlen, head_dim]
  float scale_log2;
  int seqlen;
  bool is_causal, is_longest_first;
};

// The block's tile of queries. Key tiles run from the last to the first.
struct Work {
  int head, first_row, key_tiles, unmasked;
};

template <class C>
PTX_FN Work find_work(const ForwardParams& p) {
  const int tiles = static_cast<int>(ptx::grid_size().x),
            x = static_cast<int>(ptx::block_index().x);
  Work w{static_cast<int>(ptx::block_index().y), 0, 0, 0};
  w.first_row = (p.is_longest_first ? tiles - 1 - x : x) * C::kTileQ;
  const int last = w.first_row + C::kTileQ < p.seqlen ? w.first_row + C::kTileQ : p.seqlen;
  w.key_tiles = ((p.is_causal ? last : p.seqlen) + C::kTileK - 1) / C::kTileK;
  w.unmasked = (p.is_causal ? w.first_row + 1 : p.seqlen) / C::kTileK;
  return w;
}

// Shared memory. Key tile i, counted in the order of the loop, lies in stage i % 2.
template <class C>
struct Pipeline {
  uint32_t base;

  PTX_FN uint32_t q() const { return base; }
  PTX_FN uint32_t k(int i) const { return base + C::kBytesQ + i % 2 * C::kBytesK; }
  PTX_FN uint32_t v(int i) const { return base + C::kBytesQ + (2 + i % 2) * C::kBytesK; }
  PTX_FN uint32_t q_full() const { return base + C::kBarriers; }
  PTX_FN uint32_t k_full(int i) const { return q_full() + 8 + i % 2 * 8; }
  PTX_FN uint32_t v_full(int i) const { return q_full() + 24 + i % 2 * 8; }
  PTX_FN uint32_t k_empty(int i) const { return q_full() + 40 + i % 2 * 8; }
  PTX_FN uint32_t v_empty(int i) const { return q_full() + 56 + i % 2 * 8; }
};
PTX_FN uint32_t parity_of(int i) { return i / 2 % 2; }

template <class C>
PTX_FN void init_barriers(const Pipeline<C>& pipe) {
  if (ptx::thread_index().x == 0) {
    ptx::mbarrier_init(pipe.q_full(), 1, "q full");
    for (int i = 0; i < C::kStages; ++i) {
      ptx::mbarrier_init(pipe.k_full(i), 1, "k full");
      ptx::mbarrier_init(pipe.v_full(i), 1, "v full");
      // One arrival a warp: each waits for its own products.
      ptx::mbarrier_init(pipe.k_empty(i), 4 * C::kGroups, "k empty");
      ptx::mbarrier_init(pipe.v_empty(i), 4 * C::kGroups, "v empty");
    }
    ptx::mbarrier_init_fence();
  }
  ptx::block_sync();
}

// Keys are one tile ahead of values, as the products are.
template <class C>
PTX_FN void load_tiles(const ForwardParams& p, const Pipeline<C>& pipe, const Work& w) {
  if (ptx::warp_index() != 0 || !ptx::elect_one()) return;
  const uint64_t policy = ptx::evict_last();
  ptx::mbarrier_arrive_expect(pipe.q_full(), C::kBytesQ);
  ptx::tensor_load(pipe.q(), &p.q, pipe.q_full(), {0, w.first_row, 0, w.head}, policy);
  for (int i = 0; i <= w.key_tiles; ++i) {
    const int row = (w.key_tiles - 1 - i) * C::kTileK;
    if (i < w.key_tiles) {
      ptx::mbarrier_wait(pipe.k_empty(i), parity_of(i) ^ 1);
      ptx::mbarrier_arrive_expect(pipe.k_full(i), C::kBytesK);
      ptx::tensor_load(pipe.k(i), &p.k, pipe.k_full(i), {0, row, 0, w.head}, policy);
    }
    if (i == 0) continue;
    ptx::mbarrier_wait(pipe.v_empty(i - 1), parity_of(i - 1) ^ 1);
    ptx::mbarrier_arrive_expect(pipe.v_full(i - 1), C::kBytesK);
    ptx::tensor_load(pipe.v(i - 1), &p.v, pipe.v_full(i - 1), {0, row + C::kTileK, 0, w.head},
                     policy);
  }
}

// A thread's rows: lane / 4 and that + 8 of its warp's sixteen.
struct Rows {
  float max[2], sum[2], rescale[2];
};

// s = q kᵀ, o += p v: issued, not waited for.
template <class C>
PTX_FN void issue_scores(float (&s)[C::kTileK / 2], uint64_t q, uint64_t k) {
  ptx::wgmma_fence();
#pragma unroll
  for (int i = 0; i < C::kHeadDim / 16; ++i)
    ptx::wgmma_bf16<C::kTileK, false, false>(s, q + C::TileQ::column_step(i),
                                             k + C::TileK::column_step(i), i > 0);
  ptx::wgmma_commit();
}
template <class C>
PTX_FN void issue_values(float (&o)[C::kHeadDim / 2], const uint32_t (&p)[C::kTileK / 16][4],
                         uint64_t v) {
  ptx::wgmma_fence();
#pragma unroll
  for (int i = 0; i < C::kTileK / 16; ++i)
    ptx::wgmma_bf16<C::kHeadDim, true>(o, p[i], v + C::TileK::row_step(i), true);
  ptx::wgmma_commit();
}

// `limits`: how many keys of the tile the thread's rows see, less its first column.
template <int kCount>
PTX_FN void mask(float (&s)[kCount], const int (&limits)[2]) {
#pragma unroll
  for (int e = 0; e < kCount; ++e) {
    const int column = e / 4 * 8 + e % 2;
    if (column >= limits[e / 2 % 2]) s[e] = -INFINITY;
  }
}

// s <- exp(s - max), with the rows' state. A row without a key so far has maximum -inf.
template <bool kMayBeEmpty, int kCount>
PTX_FN void soften(float (&s)[kCount], Rows& r, float scale_log2) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    float x = r.max[i];
#pragma unroll
    for (int e = 2 * i; e < kCount; e += 4) x = fmaxf(x, fmaxf(s[e], s[e + 1]));
    x = fmaxf(x, ptx::shuffle_xor(x, 1));
    x = fmaxf(x, ptx::shuffle_xor(x, 2));
    const float y = kMayBeEmpty && x == -INFINITY ? 0.0f : x * scale_log2;
    r.rescale[i] = ptx::ex2(fmaf(r.max[i], scale_log2, -y));
    r.max[i] = x;
    r.sum[i] *= r.rescale[i];
#pragma unroll
    for (int e = 2 * i; e < kCount; e += 4) {
      s[e] = ptx::ex2(fmaf(s[e], scale_log2, -y));
      s[e + 1] = ptx::ex2(fmaf(s[e + 1], scale_log2, -y));
      r.sum[i] += s[e] + s[e + 1];
    }
  }
}

// An accumulator's registers are, in order, those of the next product's first operand.
template <int kCount>
PTX_FN void pack(const float (&s)[kCount], uint32_t (&p)[kCount / 8][4]) {
#pragma unroll
  for (int i = 0; i < kCount / 8; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) p[i][j] = ptx::pack_bf16(s[8 * i + 2 * j], s[8 * i + 2 * j + 1]);
}
template <int kCount>
PTX_FN void rescale(float (&o)[kCount], const float (&by)[2]) {
#pragma unroll
  for (int e = 0; e < kCount; ++e) o[e] *= by[e / 2 % 2];
}

PTX_FN void release(uint32_t barrier) {
  if (ptx::lane_index() == 0) ptx::mbarrier_arrive(barrier);
}

// What a warpgroup that multiplies knows of its place.
template <class C>
struct Place {
  Pipeline<C> pipe;
  Work work;
  int group, row;  // of the thread's first row
  float scale_log2;
  int seqlen;
  bool is_causal;
  uint64_t q, k, v;  // descriptors of the first stages

  PTX_FN uint64_t k_of(int i) const { return k + i % 2 * (C::kBytesK >> 4); }
  PTX_FN uint64_t v_of(int i) const { return v + i % 2 * (C::kBytesK >> 4); }
  PTX_FN void limits_of(int i, int (&limits)[2]) const {
    const int first = (work.key_tiles - 1 - i) * C::kTileK + 2 * (ptx::lane_index() % 4);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int seen = row + 8 * r + 1;
      limits[r] = (is_causal && seen < seqlen ? seen : seqlen) - first;
    }
  }
};

// Tile i: its scores and the values of tile i - 1 are multiplied at once, and while the values are,
// the exponentials are found.
template <class C, bool kIsMasked>
PTX_FN void step(const Place<C>& at, int i, float (&s)[C::kTileK / 2],
                 uint32_t (&p)[C::kTileK / 16][4], float (&o)[C::kHeadDim / 2], Rows& rows) {
  const Pipeline<C>& pipe = at.pipe;
  ptx::mbarrier_wait(pipe.k_full(i), parity_of(i));
  if constexpr (C::kTakesTurns) ptx::barrier_sync(1 + at.group, 256);
  ptx::keep(s);
  issue_scores<C>(s, at.q, at.k_of(i));
  ptx::mbarrier_wait(pipe.v_full(i - 1), parity_of(i - 1));
  ptx::keep(o);
  issue_values<C>(o, p, at.v_of(i - 1));
  if constexpr (C::kTakesTurns) {
    const bool is_last = i + 1 == at.work.key_tiles && at.group + 1 == C::kGroups;
    if (!is_last) ptx::barrier_arrive(1 + (at.group + 1) % C::kGroups, 256);
  }
  ptx::wgmma_wait<1>();
  ptx::keep(s);
  release(pipe.k_empty(i));
  if constexpr (kIsMasked) {
    int limits[2];
    at.limits_of(i, limits);
    mask(s, limits);
  }
  soften<kIsMasked>(s, rows, at.scale_log2);
  ptx::keep(s);
  if constexpr (C::kFences) ptx::mbarrier_wait(pipe.v_full(i - 1), parity_of(i - 1));
  ptx::wgmma_wait<0>();
  ptx::keep(o);
  release(pipe.v_empty(i - 1));
  pack(s, p);
  rescale(o, rows.rescale);
}

template <class C>
PTX_FN void first_scores(const Place<C>& at, float (&s)[C::kTileK / 2],
                         uint32_t (&p)[C::kTileK / 16][4], Rows& rows) {
  ptx::mbarrier_wait(at.pipe.q_full(), 0);
  ptx::mbarrier_wait(at.pipe.k_full(0), 0);
  issue_scores<C>(s, at.q, at.k);
  ptx::wgmma_wait<0>();
  ptx::keep(s);
  release(at.pipe.k_empty(0));
  int limits[2];
  at.limits_of(0, limits);
  mask(s, limits);
  soften<true>(s, rows, at.scale_log2);
  pack(s, p);
}

template <class C>
PTX_FN void store(const Place<C>& at, uint16_t* out, const float (&o)[C::kHeadDim / 2],
                  const Rows& rows) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float sum = rows.sum[r] + ptx::shuffle_xor(rows.sum[r], 1);
    sum += ptx::shuffle_xor(sum, 2);
    const float inverse = 1.0f / sum;
    const int row = at.row + 8 * r;
    if (row >= at.seqlen) continue;
    uint16_t* const line =
        out + (int64_t{at.work.head} * at.seqlen + row) * C::kHeadDim + 2 * (ptx::lane_index() % 4);
#pragma unroll
    for (int e = 2 * r; e < C::kHeadDim / 2; e += 4)
      ptx::st_global(reinterpret_cast<uint32_t*>(line + e / 4 * 8),
                     ptx::pack_bf16(o[e] * inverse, o[e + 1] * inverse));
  }
}

template <class C>
PTX_FN void multiply_tiles(const Place<C>& at, uint16_t* out) {
  float s[C::kTileK / 2], o[C::kHeadDim / 2] = {};
  uint32_t p[C::kTileK / 16][4];
  Rows rows{{-INFINITY, -INFINITY}, {0, 0}, {1, 1}};
  // The first turn is passed on by who comes last, which then keeps its own last one.
  if (C::kTakesTurns && at.group + 1 == C::kGroups && at.work.key_tiles > 1)
    ptx::barrier_arrive(1, 256);
  first_scores<C>(at, s, p, rows);
  const int tiles = at.work.key_tiles, masked = tiles - at.work.unmasked;
  int i = 1;
#pragma unroll 1
  for (; i < masked; ++i) step<C, true>(at, i, s, p, o, rows);
#pragma unroll 1
  for (; i < tiles; ++i) step<C, false>(at, i, s, p, o, rows);
  ptx::mbarrier_wait(at.pipe.v_full(tiles - 1), parity_of(tiles - 1));
  ptx::keep(o);
  issue_values<C>(o, p, at.v_of(tiles - 1));
  ptx::wgmma_wait<0>();
  ptx::keep(o);
  store<C>(at, out, o, rows);
}

template <class C>
__global__ void __launch_bounds__(C::kThreads, 1) forward(const __grid_constant__ ForwardParams p) {
  const Pipeline<C> pipe{(ptx::dyn_smem() + 1023) / 1024 * 1024};
  init_barriers(pipe);
  const Work work = find_work<C>(p);
  const int group = static_cast<int>(ptx::warp_index()) / 4 - 1;
  if (group < 0) {
    ptx::decrease_registers<C::kLoading>();
    load_tiles(p, pipe, work);
    return;
  }
  ptx::increase_registers<C::kMultiplying>();
  const int row = work.first_row + 64 * group + 16 * (static_cast<int>(ptx::warp_index()) % 4) +
                  static_cast<int>(ptx::lane_index()) / 4;
  const uint32_t own = pipe.q() + group * 64 * C::TileQ::kLine;
  multiply_tiles(Place<C>{pipe, work, group, row, p.scale_log2, p.seqlen, p.is_causal,
                          C::TileQ::descriptor(own), C::TileK::descriptor(pipe.k(0)),
                          C::TileK::descriptor(pipe.v(0))},
                 p.out);
}

}  // namespace probe
