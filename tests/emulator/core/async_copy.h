// cp.async: copies that land at some time before they are waited for.
#pragma once

#include "core/machine.h"

namespace emulator {

void start_copy(uint32_t shared, const void* global, uint32_t bytes, uint32_t source_bytes,
                const Site& site);
void commit_copies();
void wait_for_copies(uint32_t pending_groups);

// One copy of some thread of the block lands.
void land_some_copy(Block& block);

}  // namespace emulator
