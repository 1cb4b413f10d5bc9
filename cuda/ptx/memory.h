// How does a thread load and store?
#pragma once

#include "ptx/declarations.h"

// The one name of the block's dynamic shared memory, whatever the kernel.
extern __shared__ __align__(128) uint4 attnext_dynamic_shared[];

namespace attnext {

PTX_FN uint32_t ptx::dyn_smem() {
  return static_cast<uint32_t>(__cvta_generic_to_shared(attnext_dynamic_shared));
}
// Ordinary accesses, not volatile assembly: the compiler keeps their order across barriers and may
// otherwise schedule them.
template <class T>
PTX_FN T ptx::ld_shared(uint32_t address) {
  static_assert(sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 16);
  return *static_cast<const T*>(__cvta_shared_to_generic(address));
}
template <class T>
PTX_FN void ptx::st_shared(uint32_t address, T value) {
  static_assert(sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 16);
  *static_cast<T*>(__cvta_shared_to_generic(address)) = value;
}

template <class T>
PTX_FN T ptx::ld_global(const T* address) {
  return *address;
}
template <class T>
PTX_FN T ptx::ld_readonly(const T* address) {
  return __ldg(address);
}
template <class T>
PTX_FN void ptx::st_global(T* address, T value) {
  *address = value;
}

PTX_FN uint32_t ptx::ld_acquire(const uint32_t* address) {
  uint32_t value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(address) : "memory");
  return value;
}
PTX_FN void ptx::st_release(uint32_t* address, uint32_t value) {
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(address), "r"(value) : "memory");
}
PTX_FN uint32_t ptx::atomic_add(uint32_t* address, uint32_t value) {
  uint32_t before;
  asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], %2;"
               : "=r"(before)
               : "l"(address), "r"(value)
               : "memory");
  return before;
}
PTX_FN void ptx::red_add(float* address, float value) {
  asm volatile("red.relaxed.gpu.global.add.f32 [%0], %1;" ::"l"(address), "f"(value) : "memory");
}
PTX_FN void ptx::fence_device() { __threadfence(); }

}  // namespace attnext
