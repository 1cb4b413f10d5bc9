// The parts of sm_90 that a block has.
#include "core/hopper.h"
namespace emulator {
void start_hopper(Block&) {}
void check_exit(const Thread&) {}
void check_leftovers(const Block&) {}
}  // namespace emulator
