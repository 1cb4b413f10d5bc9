// Choosing the next thread, and letting engines work in between.
#include "core/scheduler.h"

#include <bit>

#include "core/async_copy.h"
#include "core/report.h"

namespace emulator {
namespace {

// More than any kernel of the tests takes; reached by threads that spin for something that never
// comes.
constexpr uint64_t kMaxSwitches = 300'000'000;

// Looks at a flag while no thread synchronises, stores a flag or exits: longer than a block takes
// from one such event to the next.
constexpr uint32_t kMaxIdleSpins = 1'000'000;

void run_work(size_t i) {
  auto& work = machine().engine_work;
  const EngineWork chosen = std::move(work[i]);
  work[i] = std::move(work.back());
  work.pop_back();
  chosen.run();
}

Block* random_ready_block() {
  Machine& m = machine();
  Block* ready[kMaxWarps];
  uint32_t count = 0;
  for (const auto& block : m.slots) {
    if (block->is_live && block->ready_warps != 0) ready[count++] = block.get();
  }
  return count == 0 ? nullptr : ready[count == 1 ? 0 : m.random.below(count)];
}

int random_bit(uint32_t bits) {
  uint32_t skip = machine().random.below(std::popcount(bits));
  while (skip-- > 0) bits &= bits - 1;
  return std::countr_zero(bits);
}

// Of all blocks, the warp of the highest priority; priorities change now and then, so that the
// starved run in the end.
std::pair<Block*, int> starving_choice() {
  Machine& m = machine();
  const bool redraws = --m.until_redraw < 0;
  if (redraws) m.until_redraw = 500 + static_cast<int>(m.random.below(4000));
  std::pair<Block*, int> best{nullptr, 0};
  for (const auto& block : m.slots) {
    if (!block->is_live) continue;
    for (int warp = 0; warp < m.num_warps; ++warp) {
      if (redraws) block->priority[warp] = m.random.below(1u << 16);
      if ((block->ready_warps >> warp & 1) == 0) continue;
      if (best.first == nullptr || block->priority[warp] > best.first->priority[best.second]) {
        best = {block.get(), warp};
      }
    }
  }
  return best;
}

std::pair<Block*, int> choose_warp(const Thread* last) {
  Machine& m = machine();
  if (m.starves && !m.random.one_in(8)) return starving_choice();
  // Often the same warp again: what it gathers for then happens sooner, and caches stay warm.
  if (last != nullptr && last->block->ready_lanes[last->warp] != 0 && !m.random.one_in(4)) {
    return {last->block, last->warp};
  }
  Block* block = random_ready_block();
  return {block, random_bit(block->ready_warps)};
}

Thread& choose(const Thread* last) {
  const auto [block, warp] = choose_warp(last);
  const uint32_t lanes = block->ready_lanes[warp];
  const uint32_t from = machine().random.below(kWarpSize), above = lanes >> from;
  const int lane =
      above != 0 ? static_cast<int>(from) + std::countr_zero(above) : std::countr_zero(lanes);
  if ((block->ready_lanes[warp] &= ~(1u << lane)) == 0) block->ready_warps &= ~(1u << warp);
  return block->threads[kWarpSize * warp + lane];
}

// The next thread to run, after engines have had their chance; `last` ran before.
Thread& next_thread(const Thread* last) {
  Machine& m = machine();
  if (++m.switches > kMaxSwitches) {
    fail(last != nullptr ? last->wait.site : Site::current(),
         "NO PROGRESS: too many switches, somebody spins for ever");
  }
  for (;;) {
    const Block* ready = nullptr;
    for (const auto& block : m.slots) {
      if (block->is_live && block->ready_warps != 0) ready = block.get();
    }
    if (m.random.below(65536) < m.landing_chance || ready == nullptr) {
      if (!m.engine_work.empty()) {
        run_work(m.random.below(static_cast<uint32_t>(m.engine_work.size())));
      }
      if (last != nullptr && !last->block->threads.empty()) land_some_copy(*last->block);
    }
    for (const auto& block : m.slots) {
      if (block->is_live && block->ready_warps != 0) return choose(last);
    }
    if (m.engine_work.empty()) report_deadlock();
  }
}

void switch_from(Thread* me) {
  Machine& m = machine();
  Thread& next = next_thread(me);
  m.running = &next;
  if (&next == me) return;
  emulator_switch(&me->fiber.stack_pointer, next.fiber.stack_pointer);
}

}  // namespace

void make_ready(Thread& thread) {
  thread.block->ready_lanes[thread.warp] |= 1u << thread.lane;
  thread.block->ready_warps |= 1u << thread.warp;
}

void wait_here(const Wait& wait) {
  Thread& me = self();
  me.wait = wait;
  switch_from(&me);
}

void yield() {
  Thread& me = self();
  make_ready(me);
  switch_from(&me);
}

void maybe_yield() {
  if (machine().random.one_in(8)) yield();
}

void note_spin(const Site& site) {
  if (++machine().idle_spins > kMaxIdleSpins) {
    fail(site, "NO PROGRESS: threads spin here for what no block does");
  }
}

void run_threads() {
  Machine& m = machine();
  m.finished = nullptr;
  Thread& next = next_thread(nullptr);
  m.running = &next;
  m.is_on_fiber = true;
  emulator_switch(&m.host_stack, next.fiber.stack_pointer);
  m.is_on_fiber = false;
  m.running = nullptr;
}

void finish_work(const void* owner, uint32_t up_to_group) {
  auto& work = machine().engine_work;
  for (size_t i = 0; i < work.size();) {
    if (work[i].owner == owner && work[i].group <= up_to_group) {
      run_work(i);
    } else {
      ++i;
    }
  }
}

bool has_work(const void* owner) {
  for (const EngineWork& work : machine().engine_work) {
    if (work.owner == owner) return true;
  }
  return false;
}

void draw_order() {
  Machine& m = machine();
  // From "at once" to "only when nobody else can run".
  constexpr uint32_t kChances[] = {30000, 4000, 400, 40, 0};
  m.landing_chance = kChances[m.random.below(5)];
  m.starves = m.random.one_in(2);
  m.until_redraw = 0;
}

}  // namespace emulator
