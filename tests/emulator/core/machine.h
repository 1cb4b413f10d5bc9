// What is running: blocks, their threads, and what everybody waits for. One machine at a time.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/clock.h"
#include "core/fiber.h"
#include "core/random.h"
#include "core/shadow.h"
#include "vector_types.h"

namespace emulator {

constexpr int kWarpSize = 32, kMaxThreads = 1024, kMaxWarps = kMaxThreads / kWarpSize;
constexpr int kMaxEngines = 112;  // agents beside the threads: 64 mbarriers, 32 warps, bulk stores
constexpr int kNamedBarriers = 16;
constexpr uint32_t kAllLanes = 0xFFFFFFFFu;
// Shared memory starts here: a multiple of 128 and of nothing more, which is all that is promised.
constexpr uint32_t kSharedBase = 1024 + 128;
constexpr uint32_t kMaxShared = 227 * 1024;

struct Block;
struct Hopper;  // mbarriers, bulk copies, wgmma, register counts: hopper.h

// A cp.async on its way.
struct Copy {
  uint32_t shared, bytes, source_bytes;
  const void* global;
  uint32_t group;
  bool has_landed;
  Site site;
};

// What a thread waits for; `detail` adds numbers to the report of a deadlock.
struct Wait {
  const char* what = nullptr;
  std::string (*detail)(const Block& block, uint32_t id, uint32_t value) = nullptr;
  uint32_t id = 0, value = 0;
  Site site;
};

struct Thread {
  Fiber fiber;
  Block* block;
  uint3 index;
  int id, warp, lane;
  bool has_exited;
  Wait wait;  // meaningful while it cannot run
  Knowledge knowledge;
  std::vector<Copy> copies;  // not yet waited for, in the order of their issue
  uint32_t copy_groups;      // committed
  uint16_t proxy_fences;     // fence.proxy.async executed so far
  uint32_t bulk_agent;       // engine of its bulk stores; 0: none yet
  uint32_t bulk_groups;      // committed
  bool has_open_bulk;        // stores since
  bool is_at_barrier;        // and has to be woken when it is complete
  bool barrier_value;        // what block_any found
};

// A warp-wide operation its lanes gather for.
struct Meeting {
  const char* name = nullptr;
  Site site;
  uint32_t arrived = 0;  // lanes; 0: no operation is under way
  std::array<void*, kWarpSize> arguments{};
};

struct NamedBarrier {
  int expected = 0, arrived = 0;
  uint64_t completed = 0;  // times
  bool any = false;
  Clock released;  // by the threads that have arrived
  std::vector<Thread*> waiting;
  std::array<uint32_t, kMaxWarps> lanes{};  // arrived, by warp
  std::array<Site, kMaxWarps> sites{};
};

struct Block {
  uint3 index;
  bool is_live = false;
  int live_threads = 0, num_warps = 0;
  std::vector<Thread> threads;
  std::array<uint32_t, kMaxWarps> ready_lanes{};
  uint32_t ready_warps = 0;
  std::array<uint32_t, kMaxWarps> priority{};
  std::array<Meeting, kMaxWarps> meetings;
  std::array<NamedBarrier, kNamedBarriers> barriers;
  std::unique_ptr<uint8_t[]> shared;  // kSharedBase + kMaxShared bytes, 1024-aligned view below
  Shadow shadow;
  Stamp start = 0;
  std::vector<std::string> engines;  // names of the agents after the threads
  std::shared_ptr<Hopper> hopper;

  Block();
  ~Block();
  uint8_t* shared_bytes(uint32_t address) { return shared.get() + address; }
  uint32_t new_engine(std::string name);
  std::string agent_name(uint32_t agent) const;
};

// Work that engines do at a time of their choosing.
struct EngineWork {
  Block* block;
  std::function<void()> run;
  const void* owner;  // whose waits may force it
  uint32_t group;
  const char* what;
};

struct Settings {
  uint64_t seed = 1;
};

struct Machine {
  Settings settings;
  Random random{1};
  std::function<void()> kernel;  // one thread of it
  dim3 grid, block_size;
  uint32_t shared_size = 0;
  int num_threads = 0, num_warps = 0;
  uint64_t next_block = 0, num_blocks = 0;
  std::vector<std::unique_ptr<Block>> slots;  // blocks resident together
  Thread* running = nullptr;                  // null: the host
  void* host_stack = nullptr;
  bool is_on_fiber = false;
  Block* finished = nullptr;  // why the host was resumed
  std::string error;          // likewise
  uint64_t switches = 0;
  uint32_t idle_spins = 0;      // loads of who waits for another block, since anybody did anything
  uint32_t landing_chance = 0;  // of 65536, at every switch: an asynchronous operation completes
  bool starves = false;         // some warps run only when nobody else can
  int until_redraw = 0;
  std::vector<EngineWork> engine_work;
};

Machine& machine();
inline Thread& self() { return *machine().running; }

}  // namespace emulator
