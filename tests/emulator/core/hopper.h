// What sm_90 adds to a block: mbarriers, bulk copies, wgmma, register counts.
#pragma once

#include "core/machine.h"

namespace emulator {

void start_hopper(Block& block);
void check_exit(const Thread& thread);     // fails if a thread leaves something undone
void check_leftovers(const Block& block);  // likewise a block

}  // namespace emulator
