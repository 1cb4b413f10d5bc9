// The happens-before checks of shared memory.
#include "core/shadow.h"

#include "core/machine.h"
#include "core/report.h"

namespace emulator {

void Shadow::start(Block* block, uint32_t size) {
  block_ = block;
  start_ = block->start;
  size_ = size;
  // What an earlier block left is void by its stamps.
  const uint32_t granules = (kSharedBase + size) / kGranule + 1;
  if (writes_.size() < granules) writes_.resize(granules);
  used_layers_.clear();
  is_used_.assign(layers_.size(), false);
  reserved_.clear();
}

void Shadow::require_range(uint32_t address, uint32_t bytes, uint32_t align, const char* what,
                           const Site& site) const {
  if (address < kSharedBase || bytes > size_ || address - kSharedBase > size_ - bytes) {
    fail(site, "OUT OF BOUNDS: ", what, " of ", bytes, " bytes at offset ",
         static_cast<int64_t>(address) - kSharedBase, " of shared memory, which has ", size_,
         " bytes");
  }
  if (address % align != 0) {
    fail(site, "MISALIGNED: ", what, " at shared address ", hexadecimal(address),
         ", which is no multiple of ", align);
  }
}

std::vector<Shadow::Read>& Shadow::layer(uint32_t index) {
  if (layers_.size() <= index) layers_.resize(index + 1);
  auto& reads = layers_[index];
  if (reads.size() < writes_.size()) reads.resize(writes_.size());
  if (is_used_.size() <= index) is_used_.resize(index + 1);
  if (!is_used_[index]) {
    is_used_[index] = true;
    used_layers_.push_back(index);
  }
  return reads;
}

std::string Shadow::writer_of(const Write& write) const {
  return text(block_->agent_name(write.agent), " (", describe(write.site), ")");
}

void Shadow::check_read(const Thread& thread, uint32_t address, uint32_t bytes, bool by_engine,
                        const char* what, const Site& site) const {
  const uint32_t last = (address + bytes - 1) / kGranule;
  for (uint32_t granule = address / kGranule; granule <= last; ++granule) {
    const Write& write = writes_[granule];
    if (write.stamp < start_) {
      fail(site, "UNINITIALISED: ", what, " reads shared memory at offset ",
           granule * kGranule - kSharedBase, ", which nobody has written before");
    }
    if (!thread.knowledge.knows(write.agent, write.stamp)) {
      fail(site, "RACE: ", what, " reads shared memory at offset ",
           granule * kGranule - kSharedBase, " written by ", writer_of(write),
           write.stamp == Knowledge::kInFlight ? ", a cp.async not waited for"
                                               : "; no barrier or wait orders them");
    }
    if (by_engine && write.agent < block_->threads.size() &&
        block_->threads[write.agent].proxy_fences <= write.proxy_fences) {
      fail(site, "MISSING fence.proxy.async: ", what, " reads shared memory at offset ",
           granule * kGranule - kSharedBase, " written by ", writer_of(write));
    }
  }
}

void Shadow::check_readers(const Thread& thread, uint32_t first, uint32_t last, const char* what,
                           const Site& site) const {
  const int warps = block_->num_warps;
  for (const uint32_t index : used_layers_) {
    const bool is_warp = static_cast<int>(index) < warps;
    const uint32_t agent =
        is_warp ? kWarpSize * index : static_cast<uint32_t>(block_->threads.size()) + index - warps;
    const Stamp known = is_warp ? thread.knowledge.floor[index] : thread.knowledge.clock[agent];
    for (uint32_t granule = first; granule <= last; ++granule) {
      const Read& read = layers_[index][granule];
      if (read.stamp < start_ || read.stamp <= known) continue;
      for (uint32_t lane = 0; lane < (is_warp ? kWarpSize : 1u); ++lane) {
        if (is_warp && (read.lanes >> lane & 1) == 0) continue;
        if (thread.knowledge.knows(agent + lane, read.stamp)) continue;
        fail(site, "RACE: ", what, " overwrites shared memory at offset ",
             granule * kGranule - kSharedBase, " read by ", block_->agent_name(agent + lane),
             "; no barrier or wait orders them");
      }
    }
  }
}

void Shadow::check_write(const Thread& thread, uint32_t address, uint32_t bytes, const char* what,
                         const Site& site) const {
  const uint32_t first = address / kGranule, last = (address + bytes - 1) / kGranule;
  for (const uint32_t granule : reserved_) {
    if (granule >= first && granule <= last) {
      fail(site, "OUT OF BOUNDS: ", what, " overwrites an mbarrier");
    }
  }
  for (uint32_t granule = first; granule <= last; ++granule) {
    const Write& write = writes_[granule];
    if (write.stamp < start_ || thread.knowledge.knows(write.agent, write.stamp)) continue;
    fail(site, "RACE: ", what, " overwrites shared memory at offset ",
         granule * kGranule - kSharedBase, " written by ", writer_of(write),
         "; no barrier or wait orders them");
  }
  check_readers(thread, first, last, what, site);
}

void Shadow::remember_write(uint32_t address, uint32_t bytes, const Write& write) {
  const uint32_t last = (address + bytes - 1) / kGranule;
  for (uint32_t granule = address / kGranule; granule <= last; ++granule) writes_[granule] = write;
}

void Shadow::read(Thread& thread, uint32_t address, uint32_t bytes, const char* what,
                  const Site& site) {
  check_read(thread, address, bytes, false, what, site);
  Read* reads = layer(thread.warp).data();
  const Stamp epoch = thread.knowledge.epoch;
  const uint32_t lane = 1u << thread.lane, last = (address + bytes - 1) / kGranule;
  for (uint32_t granule = address / kGranule; granule <= last; ++granule) {
    Read& r = reads[granule];
    // Lanes of other epochs are forgotten: a finding may be missed, none is made up.
    r.lanes = r.stamp == epoch ? r.lanes | lane : lane;
    r.stamp = epoch;
  }
}

void Shadow::write(Thread& thread, uint32_t address, uint32_t bytes, const char* what,
                   const Site& site) {
  check_write(thread, address, bytes, what, site);
  remember_write(
      address, bytes,
      {site, thread.knowledge.epoch, static_cast<uint16_t>(thread.id), thread.proxy_fences});
}

void Shadow::engine_read(Thread& thread, uint32_t address, uint32_t bytes, uint32_t agent,
                         Stamp stamp, const char* what, const Site& site) {
  check_read(thread, address, bytes, true, what, site);
  const auto threads = static_cast<uint32_t>(block_->threads.size());
  Read* reads = layer(block_->num_warps + agent - threads).data();
  const uint32_t last = (address + bytes - 1) / kGranule;
  for (uint32_t granule = address / kGranule; granule <= last; ++granule) {
    reads[granule] = {stamp, 0};
  }
}

void Shadow::engine_write(Thread& thread, uint32_t address, uint32_t bytes, uint32_t agent,
                          Stamp stamp, const char* what, const Site& site) {
  check_write(thread, address, bytes, what, site);
  remember_write(address, bytes, {site, stamp, static_cast<uint16_t>(agent), 0});
}

void Shadow::begin_copy(Thread& thread, uint32_t address, uint32_t bytes, const Site& site) {
  check_write(thread, address, bytes, "cp.async", site);
  remember_write(
      address, bytes,
      {site, Knowledge::kInFlight, static_cast<uint16_t>(thread.id), thread.proxy_fences});
}

void Shadow::end_copy(Thread& thread, uint32_t address, uint32_t bytes) {
  const uint32_t last = (address + bytes - 1) / kGranule;
  for (uint32_t granule = address / kGranule; granule <= last; ++granule) {
    Write& write = writes_[granule];
    if (write.agent == thread.id && write.stamp == Knowledge::kInFlight) {
      write.stamp = thread.knowledge.epoch;
    }
  }
}

void Shadow::reserve(uint32_t address, uint32_t bytes) {
  for (uint32_t i = 0; i < bytes; i += kGranule) reserved_.push_back((address + i) / kGranule);
}

}  // namespace emulator
