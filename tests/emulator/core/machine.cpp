// The one machine, and the names of what works in a block.
#include "core/machine.h"

#include "core/hopper.h"
#include "core/report.h"

namespace emulator {

Machine& machine() {
  static Machine the_machine;
  return the_machine;
}

Block::Block() : shared(new uint8_t[kSharedBase + kMaxShared]) {}
Block::~Block() = default;

uint32_t Block::new_engine(std::string name) {
  if (engines.size() == kMaxEngines) fail(Site::current(), "the emulator has no more engines");
  engines.push_back(std::move(name));
  return static_cast<uint32_t>(threads.size() + engines.size() - 1);
}

std::string Block::agent_name(uint32_t agent) const {
  if (agent >= threads.size()) return engines[agent - threads.size()];
  return text("thread ", agent, " (warp ", agent / kWarpSize, ")");
}

}  // namespace emulator
