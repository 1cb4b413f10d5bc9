// setmaxnreg: warps give registers back to the block's pool and wait for more.
#include "core/hopper.h"
#include "core/report.h"
#include "core/scheduler.h"
#include "core/warp.h"

namespace emulator {
namespace {

struct Change {
  int count;
  bool increases;
};

std::string shortage(const Block& block, uint32_t warp, uint32_t wanted) {
  return text(": warp ", warp, " wants ", wanted, " more registers, ", block.hopper->free_registers,
              " are free");
}

void wake_wanting(Hopper& hopper) {
  for (Thread* t : hopper.wanting_registers) make_ready(*t);
  hopper.wanting_registers.clear();
}

void apply(Gathering& g) {
  const Change change = g.argument<Change>(0);
  Hopper& hopper = *g.block.hopper;
  WarpState& warp = hopper.warps[g.warp];
  if (change.count % 8 != 0 || change.count < 24 || change.count > 256) {
    fail(g.site, "BAD REGISTERS: ", change.count, " is no multiple of 8 from 24 to 256");
  }
  if (change.increases ? change.count < warp.registers : change.count > warp.registers) {
    fail(g.site, "BAD REGISTERS: ", change.increases ? "increased" : "decreased", " from ",
         warp.registers, " to ", change.count);
  }
  if (change.increases) {
    warp.has_registers = false;
  } else {
    hopper.free_registers += int64_t{kWarpSize} * (warp.registers - change.count);
    warp.registers = change.count;
    wake_wanting(hopper);
  }
}

}  // namespace

void change_registers(int count, bool increases, const Site& site) {
  Change mine{count, increases};
  gather(increases ? "increase_registers" : "decrease_registers", &mine, apply, site);
  Hopper& hopper = *self().block->hopper;
  WarpState& warp = hopper.warps[self().warp];
  while (increases && !warp.has_registers) {
    const int64_t wanted = int64_t{kWarpSize} * (count - warp.registers);
    if (hopper.free_registers >= wanted) {
      hopper.free_registers -= wanted;
      warp.registers = count;
      warp.has_registers = true;
      wake_wanting(hopper);
    } else {
      hopper.wanting_registers.push_back(&self());
      wait_here({"increase_registers", shortage, static_cast<uint32_t>(self().warp),
                 static_cast<uint32_t>(wanted), site});
    }
  }
}

}  // namespace emulator
