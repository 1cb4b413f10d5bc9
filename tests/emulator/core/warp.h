// Operations that the 32 lanes of a warp execute together.
#pragma once

#include "core/machine.h"

namespace emulator {

struct Gathering {
  Block& block;
  int warp;
  std::array<void*, kWarpSize>& arguments;  // by lane
  const Site& site;

  Thread& thread(int lane) { return block.threads[kWarpSize * warp + lane]; }
  template <class T>
  T& argument(int lane) {
    return *static_cast<T*>(arguments[lane]);
  }
};

// Waits until every lane is here; the last to come performs `act` for all.
void gather(const char* name, void* argument, void (*act)(Gathering&), const Site& site);

// Fails if lanes of the thread's warp gather, for whose operation it does not come.
void require_nobody_gathers(const char* name, const Thread& me, const Site& site);

// What shuffles and votes exchange: each lane's own `in` and, from lane `source`, `out`.
struct Exchange {
  uint64_t in, out;
  uint32_t source;
};
uint64_t shuffle_bits(const char* name, uint64_t value, uint32_t source, const Site& site);
uint32_t ballot_bits(const char* name, bool value, const Site& site);
void synchronise_warp(const Site& site);

}  // namespace emulator
