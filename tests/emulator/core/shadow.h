// Who wrote and read each two bytes of a block's shared memory, and was that in an order?
#pragma once

#include <cstdint>
#include <source_location>
#include <string>
#include <vector>

#include "core/clock.h"

namespace emulator {

using Site = std::source_location;  // of a wrapper's call: for messages, and to tell lanes apart

struct Block;
struct Thread;

class Shadow {
 public:
  // A new block: nothing is written. `size` bytes from kSharedBase on exist.
  void start(Block* block, uint32_t size);

  // Fails unless all of [address, address + bytes) exists and `address` is a multiple of `align`.
  void require_range(uint32_t address, uint32_t bytes, uint32_t align, const char* what,
                     const Site& site) const;

  // An access by a thread: checked, then remembered.
  void read(Thread& thread, uint32_t address, uint32_t bytes, const char* what, const Site& site);
  void write(Thread& thread, uint32_t address, uint32_t bytes, const char* what, const Site& site);

  // An engine's access, issued by `thread`; it is done when somebody knows `agent` up to `stamp`.
  // What it reads must have been made visible to the async proxy.
  void engine_read(Thread& thread, uint32_t address, uint32_t bytes, uint32_t agent, Stamp stamp,
                   const char* what, const Site& site);
  void engine_write(Thread& thread, uint32_t address, uint32_t bytes, uint32_t agent, Stamp stamp,
                    const char* what, const Site& site);

  // A cp.async of `thread`: in flight until end_copy() makes it an ordinary write of the thread.
  void begin_copy(Thread& thread, uint32_t address, uint32_t bytes, const Site& site);
  void end_copy(Thread& thread, uint32_t address, uint32_t bytes);

  // An mbarrier lies here: nothing else may be written.
  void reserve(uint32_t address, uint32_t bytes);

 private:
  struct Write {
    Site site;
    Stamp stamp;  // below start_: never written in this block
    uint16_t agent;
    uint16_t proxy_fences;  // of the writing thread, before it wrote
  };
  struct Read {
    Stamp stamp;
    uint32_t lanes;  // of a warp's threads; 0 for engines
  };
  static constexpr uint32_t kGranule = 2;  // bytes

  void check_read(const Thread& thread, uint32_t address, uint32_t bytes, bool by_engine,
                  const char* what, const Site& site) const;
  void check_write(const Thread& thread, uint32_t address, uint32_t bytes, const char* what,
                   const Site& site) const;
  void check_readers(const Thread& thread, uint32_t first, uint32_t last, const char* what,
                     const Site& site) const;
  void remember_write(uint32_t address, uint32_t bytes, const Write& write);
  std::vector<Read>& layer(uint32_t index);
  std::string writer_of(const Write& write) const;

  Block* block_ = nullptr;
  Stamp start_ = 0;
  uint32_t size_ = 0;
  std::vector<Write> writes_;              // by granule
  std::vector<std::vector<Read>> layers_;  // readers: one layer a warp, then one an engine
  std::vector<uint8_t> is_used_;           // by layer
  std::vector<uint32_t> used_layers_;
  std::vector<uint32_t> reserved_;  // granules
};

}  // namespace emulator
