// What has happened before what: vector clocks over the agents of a block.
//
// An agent is a thread, or an engine that works on its own: the copies completing on an mbarrier,
// the wgmma groups of a warp. Everything an agent does bears a stamp; a thread knows, of every
// agent, up to which stamp its deeds happened before what the thread does now.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace emulator {

using Stamp = uint32_t;
using Clock = std::vector<Stamp>;  // by agent

// Greater than all before it, of any block: what an earlier block left in a shadow is void.
Stamp next_stamp();
void advance_stamps(Stamp at_least);
bool stamps_run_out();  // before they wrap, the shadows are cleared and stamps start again
void restart_stamps();

void join(Clock& into, const Clock& from);

struct Knowledge {
  int thread;                   // whose it is; threads are the first agents of a block
  Clock clock;                  // of itself: up to where it has told others
  Stamp epoch;                  // the stamp of its deeds until it next tells others of them
  std::array<Stamp, 32> floor;  // by warp: what is known of all its lanes

  void start(int own_id, size_t agents, Stamp at);
  // What others who acquire the result will know of it.
  const Clock& release();
  void acquire(const Clock& released, int warps);
  bool knows(uint32_t agent, Stamp stamp) const {
    return static_cast<int>(agent) == thread ? stamp != kInFlight : clock[agent] >= stamp;
  }
  void find_floors(int warps);

  static constexpr Stamp kInFlight = 0xFFFFFFFFu;  // of a cp.async not waited for: nobody knows it
};

// All of them have told each other everything: a barrier has completed.
void exchange(Knowledge* const* members, int count, int warps);

}  // namespace emulator
