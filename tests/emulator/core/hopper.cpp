// A block's mbarriers, products and registers when it starts, and when it ends.
#include "core/hopper.h"

#include <algorithm>

#include "core/report.h"
#include "core/scheduler.h"

namespace emulator {

void start_hopper(Block& block) {
  block.hopper = std::make_shared<Hopper>();
  // What ptxas may give a thread if the block has the multiprocessor to itself.
  const int registers = std::min(255, 65536 / machine().num_threads) / 8 * 8;
  for (WarpState& warp : block.hopper->warps) warp.registers = registers;
}

void check_exit(const Thread& thread) {
  if (thread.has_open_bulk) {
    fail(Site::current(), "UNFINISHED: a thread exits with bulk stores it has not committed");
  }
  if (has_work(&thread)) {
    fail(Site::current(),
         "UNFINISHED: a thread exits before its bulk stores have read shared memory");
  }
}

void check_leftovers(const Block& block) {
  for (const EngineWork& work : machine().engine_work) {
    if (work.block == &block) {
      fail(Site::current(), "UNFINISHED: a block ends with ", work.what, " in flight");
    }
  }
  for (const auto& barrier : block.hopper->mbarriers) {
    if (barrier->bytes != 0) {
      fail(Site::current(), "UNFINISHED: a block ends while mbarrier ", barrier->name, " expects ",
           barrier->bytes, " bytes");
    }
  }
  for (int warp = 0; warp < block.num_warps; ++warp) {
    const WarpState& state = block.hopper->warps[warp];
    if (!state.open.empty() || !state.in_flight.empty()) {
      fail(Site::current(), "UNFINISHED: warp ", warp, " ends with wgmma it has not waited for");
    }
    if (state.registers != block.hopper->warps[warp / 4 * 4].registers) {
      fail(Site::current(), "BAD REGISTERS: the warps of a warpgroup ask for different counts");
    }
  }
}

}  // namespace emulator
