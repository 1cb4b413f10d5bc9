// Which wrappers kernels may call, once for both sides: ptx/*.h here defines them as instructions,
// tests/emulator/ptx/*.h with the same meaning on a CPU. Definitions are written with their
// qualified name (`ptx::block_sync`), so one whose signature differs from this list does not
// compile.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "ptx/platform.h"  // PTX_FN, and the call's place: PTX_SITE, PTX_AND_SITE

namespace attnext::ptx {

// Addresses of shared memory are 32-bit numbers, never pointers: every access is a wrapper's.

// ---- ptx/thread.h: who am I, and meeting the other threads ----
PTX_FN uint3 thread_index();
PTX_FN uint3 block_index();
PTX_FN dim3 block_size();
PTX_FN dim3 grid_size();
PTX_FN uint32_t lane_index();  // of a one-dimensional block, as is warp_index
// Uniform: the compiler may keep it in a uniform register. All 32 lanes take part.
PTX_FN uint32_t warp_index(PTX_SITE);
// All threads of the block; a thread may not exit before one that others wait at.
PTX_FN void block_sync(PTX_SITE);
PTX_FN bool block_any(bool value PTX_AND_SITE);  // block_sync, and: is it true in some thread?
// `threads` (whole warps) meet at barrier `id`, 1 to 15; an arriving thread does not wait.
PTX_FN void barrier_sync(int id, int threads PTX_AND_SITE);
PTX_FN void barrier_arrive(int id, int threads PTX_AND_SITE);
// All 32 lanes, always: orders their memory accesses. The shuffles and votes do not.
PTX_FN void warp_sync(PTX_SITE);
// All 32 lanes take part; T has 4 or 8 bytes.
template <class T>
PTX_FN T shuffle(T value, uint32_t source_lane PTX_AND_SITE);
template <class T>
PTX_FN T shuffle_xor(T value, uint32_t lane_mask PTX_AND_SITE);
template <class T>
PTX_FN T shuffle_down(T value,
                      uint32_t delta PTX_AND_SITE);  // own value where there is no such lane
template <class T>
PTX_FN T shuffle_up(T value, uint32_t delta PTX_AND_SITE);
PTX_FN uint32_t ballot(bool value PTX_AND_SITE);  // bit i: lane i's value
PTX_FN bool warp_any(bool value PTX_AND_SITE);
PTX_FN bool warp_all(bool value PTX_AND_SITE);

// ---- ptx/memory.h: loads, stores, atomics ----
// T has 2, 4, 8 or 16 bytes (uint16_t, float, float2, double, uint4, float4, double2, ...) and the
// address is a multiple of its size.
PTX_FN uint32_t dyn_smem();  // the block's dynamic shared memory; a multiple of 128
template <class T>
PTX_FN T ld_shared(uint32_t address PTX_AND_SITE);
template <class T>
PTX_FN void st_shared(uint32_t address, T value PTX_AND_SITE);
template <class T>
PTX_FN T ld_global(const T* address PTX_AND_SITE);
template <class T>
PTX_FN T ld_readonly(const T* address PTX_AND_SITE);  // nothing writes it while the kernel runs
template <class T>
PTX_FN void st_global(T* address, T value PTX_AND_SITE);
// Between blocks: release and acquire at the scope of the device. ld_acquire may be spun on.
PTX_FN uint32_t ld_acquire(const uint32_t* address PTX_AND_SITE);
PTX_FN void st_release(uint32_t* address, uint32_t value PTX_AND_SITE);
PTX_FN uint32_t atomic_add(uint32_t* address, uint32_t value PTX_AND_SITE);  // the value before
PTX_FN void red_add(float* address, float value PTX_AND_SITE);               // order not determined
PTX_FN void fence_device(PTX_SITE);

// ---- ptx/async_copy.h: cp.async (sm_75: an ordinary copy) ----
// Copies kBytes (4, 8 or 16) of which those from source_bytes on are zeros; with 0 the source is
// not read. Both addresses are multiples of kBytes.
template <int kBytes>
PTX_FN void cp_async(uint32_t shared, const void* global, uint32_t source_bytes PTX_AND_SITE);
PTX_FN void cp_async_commit(PTX_SITE);
template <int kPending>
PTX_FN void cp_async_wait(PTX_SITE);  // own groups; others see them after a barrier

// ---- ptx/matrix.h: 8x8 matrices of 16-bit elements, and products of them; all 32 lanes ----
// Lane 8 m + r names row r (16 bytes) of matrix m; lane l receives elements 2 (l % 4) and + 1 of
// row l / 4 of matrix m in r[m]; trans: of the transposed matrix. For x2 the addresses of lanes 16
// to 31 are not used, but must be valid.
PTX_FN void ldmatrix_x4(uint32_t (&r)[4], uint32_t row PTX_AND_SITE);
PTX_FN void ldmatrix_x4_trans(uint32_t (&r)[4], uint32_t row PTX_AND_SITE);
PTX_FN void ldmatrix_x2(uint32_t (&r)[2], uint32_t row PTX_AND_SITE);
PTX_FN void ldmatrix_x2_trans(uint32_t (&r)[2], uint32_t row PTX_AND_SITE);
PTX_FN void stmatrix_x4(uint32_t row, const uint32_t (&r)[4] PTX_AND_SITE);  // before sm_90: stores
PTX_FN void stmatrix_x4_trans(uint32_t row, const uint32_t (&r)[4] PTX_AND_SITE);
// d += a b. f16 runs everywhere; bf16 and tf32 from sm_80 on (sm_75 traps: do not dispatch it
// there). With g = lane / 4, t = lane % 4:
//   d: d[2 i + e] = D[g + 8 i][2 t + e]
//   16-bit, k16: a[i + 2 j] = A[g + 8 i][8 j + 2 t + {0, 1}],  b[j] = B[8 j + 2 t + {0, 1}][g]
//   f16, k8:     a[i] = A[g + 8 i][2 t + {0, 1}],              b = B[2 t + {0, 1}][g]
//   tf32, k8:    a[i + 2 j] = A[g + 8 i][t + 4 j],             b[j] = B[t + 4 j][g]
PTX_FN void mma_m16n8k16_f16(float (&d)[4], const uint32_t (&a)[4],
                             const uint32_t (&b)[2] PTX_AND_SITE);
PTX_FN void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4],
                              const uint32_t (&b)[2] PTX_AND_SITE);
PTX_FN void mma_m16n8k8_f16(float (&d)[4], const uint32_t (&a)[2], uint32_t b PTX_AND_SITE);
PTX_FN void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4],
                             const uint32_t (&b)[2] PTX_AND_SITE);

// ---- ptx/math.h: approximations of the special function unit; subnormals are flushed ----
PTX_FN float ex2(float x);
PTX_FN float lg2(float x);
PTX_FN float rcp(float x);
PTX_FN float rsqrt(float x);
PTX_FN float tanh_approx(float x);  // error near 2^-11

// ---- ptx/convert.h: 16-bit floats as their bits, rounded to nearest even ----
PTX_FN float f16_to_f32(uint16_t x);
PTX_FN float bf16_to_f32(uint16_t x);
PTX_FN uint16_t f32_to_f16(float x);
PTX_FN uint16_t f32_to_bf16(float x);
PTX_FN uint32_t pack_f16(float low, float high);
PTX_FN uint32_t pack_bf16(float low, float high);
PTX_FN float2 unpack_f16(uint32_t pair);  // x is the low half
PTX_FN float2 unpack_bf16(uint32_t pair);
PTX_FN uint32_t f32_to_tf32(float x);  // to nearest; before sm_80: x's own bits

}  // namespace attnext::ptx
