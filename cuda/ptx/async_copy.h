// How does a block copy global to shared memory without waiting? (sm_75 waits.)
#pragma once

#include "ptx/memory.h"

namespace attnext {

namespace ptx_detail {

// What sm_75 does instead of cp.async: whole copies by registers, partial ones byte by byte into
// them.
template <class Word>
PTX_FN void copy_now(uint32_t shared, const void* global, uint32_t source_bytes) {
  Word word{};
  if (source_bytes == sizeof(Word)) {
    word = *static_cast<const Word*>(global);
  } else {
    auto* bytes = reinterpret_cast<unsigned char*>(&word);
#pragma unroll
    for (uint32_t i = 0; i < sizeof(Word); ++i) {
      if (i < source_bytes) bytes[i] = static_cast<const unsigned char*>(global)[i];
    }
  }
  ptx::st_shared(shared, word);
}

}  // namespace ptx_detail

template <int kBytes>
PTX_FN void ptx::cp_async(uint32_t shared, const void* global, uint32_t source_bytes) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
#if __CUDA_ARCH__ >= 800
  if constexpr (kBytes == 16) {  // .cg: past L1, which the tile would only pollute
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global),
                 "r"(source_bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared), "l"(global),
                 "n"(kBytes), "r"(source_bytes)
                 : "memory");
  }
#else
  if constexpr (kBytes == 16) {
    ptx_detail::copy_now<uint4>(shared, global, source_bytes);
  } else if constexpr (kBytes == 8) {
    ptx_detail::copy_now<uint2>(shared, global, source_bytes);
  } else {
    ptx_detail::copy_now<uint32_t>(shared, global, source_bytes);
  }
#endif
}

PTX_FN void ptx::cp_async_commit() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
template <int kPending>
PTX_FN void ptx::cp_async_wait() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#endif
}

}  // namespace attnext
