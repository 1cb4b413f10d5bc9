// What sm_90 adds to a block: mbarriers, bulk copies, wgmma, register counts.
#pragma once

#include <deque>

#include "core/machine.h"

namespace emulator {

struct Mbarrier {
  std::string name;
  uint32_t address, count, pending;  // arrivals still to come in this phase
  int64_t bytes;                     // expected and not landed; may be negative for a moment
  uint32_t phase;                    // completed
  uint32_t agent;
  int creator;  // thread that initialised it, at this time
  Stamp created;
  bool is_fenced;   // fence.mbarrier_init was executed since
  Clock arriving;   // released by the arrivals of this phase
  Clock completed;  // by all phases before
  std::vector<Thread*> waiting;
};

// The d of products in flight: its registers hold poison, its value is here.
struct Accumulator {
  int n;
  int products;                     // of it, not yet waited for
  std::array<float*, kWarpSize> d;  // registers of each lane, [n / 2]
  std::vector<float> value;         // [16][n]: the rows of this warp
};

struct Wgmma {
  int n;
  bool is_f16, accumulates, transposes_a, transposes_b, has_registers;
  uint64_t a, b;                                       // descriptors; b only with registers
  std::array<const uint32_t*, kWarpSize> a_registers;  // [4] of each lane
  uint32_t a_values[kWarpSize][4];                     // at issue
  std::shared_ptr<Accumulator> d;
  Site site;
};

struct WgmmaGroup {
  std::vector<Wgmma> products;
  bool has_run = false;
};

struct WarpState {
  bool is_wgmma_fenced = false;
  uint32_t agent = 0;             // of its wgmma groups; 0: none yet
  std::vector<Wgmma> open;        // issued since the last commit
  std::deque<WgmmaGroup> groups;  // all of this block: finished ones are emptied
  size_t retired = 0;             // groups waited for
  std::vector<std::shared_ptr<Accumulator>> in_flight;
  size_t issued = 0;          // products, for comparing the warps of a warpgroup
  int registers = 0;          // of each thread
  bool has_registers = true;  // an increase has been granted
};

struct Hopper {
  std::vector<std::unique_ptr<Mbarrier>> mbarriers;
  std::array<WarpState, kMaxWarps> warps;
  std::array<std::vector<uint64_t>, kMaxWarps / 4> products;  // by warpgroup: what was issued
  int64_t free_registers = 0;
  std::vector<Thread*> wanting_registers;
};

void start_hopper(Block& block);
void check_exit(const Thread& thread);     // fails if a thread leaves something undone
void check_leftovers(const Block& block);  // likewise a block

// mbarrier.cpp
void init_mbarrier(uint32_t address, uint32_t arrivals, const char* name, const Site& site);
void fence_mbarriers();
void arrive_at_mbarrier(uint32_t address, uint32_t bytes, const Site& site);
bool try_mbarrier(uint32_t address, uint32_t parity, const Site& site);
Mbarrier& find_mbarrier(uint32_t address, const char* what, const Site& site);
void land_bytes(Block& block, Mbarrier& barrier, uint32_t bytes);
bool elect_lane(const Site& site);

// bulk_copy.cpp
void load_bulk(uint32_t shared, const void* global, uint32_t bytes, uint32_t barrier,
               const Site& site);
void store_bulk(void* global, uint32_t shared, uint32_t bytes, bool adds, const Site& site);
void load_tensor(uint32_t shared, const void* map, uint32_t barrier, const int32_t* coordinates,
                 int rank, const Site& site);
void store_tensor(const void* map, uint32_t shared, const int32_t* coordinates, int rank,
                  const Site& site);
void commit_bulk();
void wait_for_bulk(uint32_t pending_groups);
void fence_async_proxy();

// wgmma.cpp
struct WgmmaOperands {
  float* d;
  const uint32_t* a_registers;  // null: a is a descriptor
  uint64_t a, b;
  int n;
  bool is_f16, accumulates, transposes_a, transposes_b;
};
void fence_wgmma(const Site& site);
void issue_wgmma(const WgmmaOperands& mine, const Site& site);
void commit_wgmma(const Site& site);
void wait_for_wgmma(uint32_t pending_groups, const Site& site);

// registers.cpp
void change_registers(int count, bool increases, const Site& site);

}  // namespace emulator
