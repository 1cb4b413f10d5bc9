// Which wrappers only kernels of sm_90a may call. See declarations.h for what a declaration means.
#pragma once

#include <cuda.h>  // CUtensorMap

#include <cstdint>

#include "ptx/declarations.h"

namespace attnext::ptx {

// ---- ptx/mbarrier.h: 8 bytes of shared memory at `barrier`, a multiple of 8 ----
// A phase is complete when `arrivals` threads have arrived and all expected bytes have landed.
// `name` is for the emulator's reports.
PTX_FN void mbarrier_init(uint32_t barrier, uint32_t arrivals, const char* name PTX_AND_SITE);
PTX_FN void mbarrier_init_fence(PTX_SITE);  // by who initialised, before block_sync
PTX_FN void mbarrier_arrive(uint32_t barrier PTX_AND_SITE);
PTX_FN void mbarrier_arrive_expect(uint32_t barrier, uint32_t bytes PTX_AND_SITE);
// Has the phase of this parity completed? A producer's first wait for an empty stage asks for 1.
PTX_FN bool mbarrier_try_wait(uint32_t barrier, uint32_t parity PTX_AND_SITE);
PTX_FN void mbarrier_wait(uint32_t barrier, uint32_t parity PTX_AND_SITE);
PTX_FN bool elect_one(PTX_SITE);  // true in one lane of the warp

// ---- ptx/bulk_copy.h: copies that an engine does ----
// The box of `map` at `coordinates` (innermost first), completing on `barrier`. Shared addresses
// are multiples of 128, of 8 swizzled rows where the map swizzles.
template <int kRank>
PTX_FN void tensor_load(uint32_t shared, const CUtensorMap* map, uint32_t barrier,
                        const int32_t (&coordinates)[kRank], uint64_t policy PTX_AND_SITE);
template <int kRank>
PTX_FN void tensor_store(const CUtensorMap* map, uint32_t shared,
                         const int32_t (&coordinates)[kRank] PTX_AND_SITE);
PTX_FN void tensor_prefetch(const CUtensorMap* map PTX_AND_SITE);
// Sizes and addresses are multiples of 16.
PTX_FN void bulk_load(uint32_t shared, const void* global, uint32_t bytes,
                      uint32_t barrier PTX_AND_SITE);
PTX_FN void bulk_store(void* global, uint32_t shared, uint32_t bytes PTX_AND_SITE);
PTX_FN void bulk_reduce_add(float* global, uint32_t shared, uint32_t bytes PTX_AND_SITE);
// Straight from registers: four sums, each atomic, in no order; the address is a multiple of 16.
PTX_FN void red_add_v4(float* address, float4 values PTX_AND_SITE);
// Of the thread's own stores and reductions: groups, and waiting until at most kPending are left
// that have not read shared memory, or have not been written.
PTX_FN void bulk_commit(PTX_SITE);
template <int kPending>
PTX_FN void bulk_wait_read(PTX_SITE);
template <int kPending>
PTX_FN void bulk_wait(PTX_SITE);
// By each thread that wrote, before the barrier after which an engine or wgmma reads.
PTX_FN void fence_async_shared(PTX_SITE);
PTX_FN uint64_t evict_first();
PTX_FN uint64_t evict_last();

// ---- ptx/wgmma.h: products of a warpgroup, m64 n kN k16 ----
// Fence, products, commit; then wait until at most kPending groups are left. In between neither d
// nor a may be touched. d[4 j + 2 i + e] = D[16 w + g + 8 i][8 j + 2 t + e] for warp w of the
// group.
PTX_FN void wgmma_fence(PTX_SITE);
PTX_FN void wgmma_commit(PTX_SITE);
template <int kPending>
PTX_FN void wgmma_wait(PTX_SITE);
// a and b are descriptors; transposed operands have their rows (m, n) innermost.
template <int kN, bool kTransposesA, bool kTransposesB>
PTX_FN void wgmma_f16(float (&d)[kN / 2], uint64_t a, uint64_t b, bool accumulates PTX_AND_SITE);
template <int kN, bool kTransposesA, bool kTransposesB>
PTX_FN void wgmma_bf16(float (&d)[kN / 2], uint64_t a, uint64_t b, bool accumulates PTX_AND_SITE);
// a in registers, laid out as for mma_m16n8k16.
template <int kN, bool kTransposesB>
PTX_FN void wgmma_f16(float (&d)[kN / 2], const uint32_t (&a)[4], uint64_t b,
                      bool accumulates PTX_AND_SITE);
template <int kN, bool kTransposesB>
PTX_FN void wgmma_bf16(float (&d)[kN / 2], const uint32_t (&a)[4], uint64_t b,
                       bool accumulates PTX_AND_SITE);
// Registers are taken to change here: keeps the compiler from moving their computation past it.
template <int kCount>
PTX_FN void keep(float (&values)[kCount]);
// All warps of a warpgroup, from the count at launch.
template <int kRegisters>
PTX_FN void increase_registers(PTX_SITE);
template <int kRegisters>
PTX_FN void decrease_registers(PTX_SITE);

}  // namespace attnext::ptx
