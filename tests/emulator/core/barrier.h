// Barriers of a block: bar.sync, bar.arrive and __syncthreads.
#pragma once

#include "core/machine.h"

namespace emulator {

// Barrier `id` is complete when `threads` have arrived; true if some thread's `value` was. Only
// those that `wait` learn what the others did.
bool arrive_at_barrier(int id, int threads, bool waits, bool value, const char* what,
                       const Site& site);

}  // namespace emulator
