// Barriers of a block: bar.sync, bar.arrive and __syncthreads.
#pragma once

#include "core/machine.h"

namespace emulator {

// All threads of the block meet; true if some thread's `value` was.
bool synchronise_block(bool value, const char* what, const Site& site);

// Barrier `id` is complete when `threads` have arrived, by whole warps; who does not wait does not
// learn what the others did.
void arrive_at_barrier(int id, int threads, bool waits, const char* what, const Site& site);

}  // namespace emulator
