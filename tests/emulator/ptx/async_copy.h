// How does a block copy global to shared memory without waiting?
#pragma once

#include "core/async_copy.h"
#include "ptx/memory.h"

namespace attnext {

template <int kBytes>
PTX_FN void ptx::cp_async(uint32_t shared, const void* global, uint32_t source_bytes,
                          const Site& site) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
  emulator::start_copy(shared, global, kBytes, source_bytes, site);
}
PTX_FN void ptx::cp_async_commit(const Site&) { emulator::commit_copies(); }
template <int kPending>
PTX_FN void ptx::cp_async_wait(const Site&) {
  emulator::wait_for_copies(kPending);
}

}  // namespace attnext
