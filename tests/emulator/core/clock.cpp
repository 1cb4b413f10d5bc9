// Vector clocks: joining them, and the stamps they are made of.
#include "core/clock.h"

#include <algorithm>

namespace emulator {
namespace {

Stamp latest = 0;
constexpr Stamp kLastStamp = 0x70000000u;

}  // namespace

Stamp next_stamp() { return ++latest; }
void advance_stamps(Stamp at_least) { latest = std::max(latest, at_least); }
bool stamps_run_out() { return latest > kLastStamp; }
void restart_stamps() { latest = 0; }

void join(Clock& into, const Clock& from) {
  Stamp* a = into.data();
  const Stamp* b = from.data();
  const size_t n = from.size();
  for (size_t i = 0; i < n; ++i) a[i] = a[i] > b[i] ? a[i] : b[i];
}

void Knowledge::start(int own_id, size_t agents, Stamp at) {
  thread = own_id;
  clock.assign(agents, 0);
  epoch = at;
  floor.fill(0);
}

const Clock& Knowledge::release() {
  clock[thread] = next_stamp();
  epoch = next_stamp();
  return clock;
}

void Knowledge::acquire(const Clock& released, int warps) {
  const Stamp own = clock[thread];
  join(clock, released);
  clock[thread] = own;
  find_floors(warps);
}

void Knowledge::find_floors(int warps) {
  for (int warp = 0; warp < warps; ++warp) {
    const Stamp* lanes = clock.data() + 32 * warp;
    Stamp least = lanes[0];
    for (int lane = 1; lane < 32; ++lane) least = lanes[lane] < least ? lanes[lane] : least;
    floor[warp] = least;
  }
}

void exchange(Knowledge* const* members, int count, int warps) {
  Clock& all = members[0]->clock;
  for (int i = 1; i < count; ++i) join(all, members[i]->clock);
  const Stamp told = next_stamp(), after = next_stamp();
  for (int i = 0; i < count; ++i) all[members[i]->thread] = told;
  members[0]->find_floors(warps);
  members[0]->epoch = after;
  for (int i = 1; i < count; ++i) {
    members[i]->clock = all;
    members[i]->floor = members[0]->floor;
    members[i]->epoch = after;
  }
}

}  // namespace emulator
