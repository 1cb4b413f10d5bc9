// A launch: blocks become resident in order, run interleaved, and must leave nothing behind.
#include "core/launch.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "core/fault.h"
#include "core/hopper.h"
#include "core/memory.h"
#include "core/report.h"
#include "core/scheduler.h"

namespace emulator {
namespace {

constexpr int kMaxResidentBlocks = 4;

uint64_t chosen_seed() {
  const char* seed = std::getenv("ATTNEXT_EMULATOR_SEED");
  return seed != nullptr ? std::strtoull(seed, nullptr, 10) : 1;
}

// Where every fiber begins.
[[noreturn]] void run_thread() {
  Machine& m = machine();
  m.kernel();
  Thread& me = self();
  me.has_exited = true;
  m.idle_spins = 0;
  if (!me.copies.empty()) {
    fail(me.copies.front().site, "UNFINISHED: a thread exits with ", me.copies.size(),
         " cp.async it has not waited for");
  }
  check_exit(me);
  if (--me.block->live_threads == 0) {
    m.finished = me.block;
    void* never;
    emulator_switch(&never, m.host_stack);
  }
  wait_here({});
  std::abort();  // an exited thread is never made ready
}

uint3 position(uint64_t number, dim3 extent) {
  return {static_cast<unsigned>(number % extent.x),
          static_cast<unsigned>(number / extent.x % extent.y),
          static_cast<unsigned>(number / extent.x / extent.y)};
}

void start_thread(Block& block, int id, int stack_index) {
  Machine& m = machine();
  Thread& t = block.threads[id];
  const Clock clock = std::move(t.knowledge.clock);  // keeps its memory
  t = Thread{};
  t.knowledge.clock = clock;
  t.block = &block;
  t.id = id;
  t.warp = id / kWarpSize;
  t.lane = id % kWarpSize;
  t.index = position(id, m.block_size);
  t.knowledge.start(id, m.num_threads + kMaxEngines, block.start);
  start_fiber(t.fiber, stack_index, run_thread);
  make_ready(t);
}

void start_block(Block& block, int slot) {
  Machine& m = machine();
  block.index = position(m.next_block++, m.grid);
  block.is_live = true;
  block.live_threads = m.num_threads;
  block.num_warps = m.num_warps;
  block.threads.resize(m.num_threads);
  block.meetings.fill({});
  for (NamedBarrier& barrier : block.barriers) barrier = {};
  block.engines.clear();
  block.start = next_stamp();
  block.shadow.start(&block, m.shared_size);
  memset(block.shared_bytes(kSharedBase), kPoison, m.shared_size);
  start_hopper(block);
  for (int warp = 0; warp < m.num_warps; ++warp) block.priority[warp] = m.random.below(1u << 16);
  for (int id = 0; id < m.num_threads; ++id) start_thread(block, id, slot * m.num_threads + id);
}

void fill_slots() {
  Machine& m = machine();
  for (size_t slot = 0; slot < m.slots.size(); ++slot) {
    if (!m.slots[slot]->is_live && m.next_block < m.num_blocks) {
      start_block(*m.slots[slot], static_cast<int>(slot));
    }
  }
}

void prepare(const LaunchShape& shape, const std::function<void()>& kernel) {
  Machine& m = machine();
  m.settings.seed = chosen_seed();
  // From the seed and the shape, not from what ran before: a launch is repeated by its own test.
  m.random = Random(m.settings.seed + 1000003 * shape.grid.x + 10007 * shape.grid.y +
                    101 * shape.grid.z + 17 * shape.block.x + shape.shared_bytes);
  m.kernel = kernel;
  m.grid = shape.grid;
  m.block_size = shape.block;
  m.shared_size = shape.shared_bytes;
  m.num_threads = static_cast<int>(shape.block.x * shape.block.y * shape.block.z);
  m.num_warps = m.num_threads / kWarpSize;
  m.next_block = 0;
  m.num_blocks = uint64_t{shape.grid.x} * shape.grid.y * shape.grid.z;
  m.error.clear();
  m.switches = 0;
  m.idle_spins = 0;
  m.engine_work.clear();
  if (stamps_run_out()) {
    m.slots.clear();
    restart_stamps();
  }
  draw_order();
  const uint64_t fit = kMaxThreads / static_cast<uint64_t>(m.num_threads);
  const uint64_t resident = std::min<uint64_t>(
      {m.num_blocks, std::max<uint64_t>(fit, 1), 1 + m.random.below(kMaxResidentBlocks)});
  while (m.slots.size() < resident) m.slots.push_back(std::make_unique<Block>());
  m.slots.resize(resident);
}

}  // namespace

std::string refuse_shape(const LaunchShape& shape) {
  const dim3 &g = shape.grid, &b = shape.block;
  const uint64_t threads = uint64_t{b.x} * b.y * b.z;
  if (threads == 0 || threads > kMaxThreads || b.z > 64) {
    return text("a block cannot have ", b.x, " x ", b.y, " x ", b.z, " threads");
  }
  if (threads % kWarpSize != 0) {
    return text("a block of ", threads, " threads is not made of whole warps");
  }
  if (g.x == 0 || g.y == 0 || g.z == 0 || g.x > 0x7FFFFFFF || g.y > 65535 || g.z > 65535) {
    return text("a grid cannot have ", g.x, " x ", g.y, " x ", g.z, " blocks");
  }
  return {};
}

std::string run_grid(const LaunchShape& shape, const std::function<void()>& kernel) {
  Machine& m = machine();
  prepare(shape, kernel);
  const FaultsReported scope;
  try {
    for (fill_slots(); m.error.empty(); fill_slots()) {
      const bool any_live = std::any_of(m.slots.begin(), m.slots.end(),
                                        [](const auto& block) { return block->is_live; });
      if (!any_live) break;
      run_threads();
      if (m.error.empty()) {
        check_leftovers(*m.finished);
        m.finished->is_live = false;
      }
    }
  } catch (const Stopped&) {
  }
  m.kernel = nullptr;
  if (!m.error.empty()) m.slots.clear();  // shadows with copies in flight
  return m.error;
}

}  // namespace emulator
