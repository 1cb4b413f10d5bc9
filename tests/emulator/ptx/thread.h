// Which thread is this, and how does it meet the others?
#pragma once

#include <cstring>

#include "core/barrier.h"
#include "core/report.h"
#include "core/warp.h"
#include "ptx/declarations.h"

namespace attnext {

using emulator::Site;

PTX_FN uint3 ptx::thread_index() { return emulator::self().index; }
PTX_FN uint3 ptx::block_index() { return emulator::self().block->index; }
PTX_FN dim3 ptx::block_size() { return emulator::machine().block_size; }
PTX_FN dim3 ptx::grid_size() { return emulator::machine().grid; }
PTX_FN uint32_t ptx::lane_index() { return emulator::self().id % emulator::kWarpSize; }
// The real one is a shuffle: its lanes must meet, though here each knows its warp.
PTX_FN uint32_t ptx::warp_index(const Site& site) {
  return static_cast<uint32_t>(
      emulator::shuffle_bits("warp_index", emulator::self().warp, 0, site));
}

PTX_FN void ptx::block_sync(const Site& site) {
  emulator::synchronise_block(false, "block_sync", site);
}
PTX_FN bool ptx::block_any(bool value, const Site& site) {
  return emulator::synchronise_block(value, "block_any", site);
}
PTX_FN void ptx::barrier_sync(int id, int threads, const Site& site) {
  emulator::arrive_at_barrier(id, threads, true, "barrier_sync", site);
}
PTX_FN void ptx::barrier_arrive(int id, int threads, const Site& site) {
  emulator::arrive_at_barrier(id, threads, false, "barrier_arrive", site);
}
PTX_FN void ptx::warp_sync(const Site& site) { emulator::synchronise_warp(site); }

namespace ptx_detail {

template <class T>
T shuffle_value(const char* name, T value, uint32_t source, const Site& site) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof(T));
  bits = emulator::shuffle_bits(name, bits, source, site);
  memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace ptx_detail

template <class T>
PTX_FN T ptx::shuffle(T value, uint32_t source_lane, const Site& site) {
  return ptx_detail::shuffle_value("shuffle", value, source_lane % 32, site);
}
template <class T>
PTX_FN T ptx::shuffle_xor(T value, uint32_t lane_mask, const Site& site) {
  return ptx_detail::shuffle_value("shuffle_xor", value, (lane_index() ^ lane_mask) % 32, site);
}
template <class T>
PTX_FN T ptx::shuffle_down(T value, uint32_t delta, const Site& site) {
  const uint32_t lane = lane_index();
  return ptx_detail::shuffle_value("shuffle_down", value, lane + delta < 32 ? lane + delta : lane,
                                   site);
}
template <class T>
PTX_FN T ptx::shuffle_up(T value, uint32_t delta, const Site& site) {
  const uint32_t lane = lane_index();
  return ptx_detail::shuffle_value("shuffle_up", value, lane >= delta ? lane - delta : lane, site);
}
PTX_FN uint32_t ptx::ballot(bool value, const Site& site) {
  return emulator::ballot_bits("ballot", value, site);
}
PTX_FN bool ptx::warp_any(bool value, const Site& site) {
  return emulator::ballot_bits("warp_any", value, site) != 0;
}
PTX_FN bool ptx::warp_all(bool value, const Site& site) {
  return emulator::ballot_bits("warp_all", value, site) == emulator::kAllLanes;
}

}  // namespace attnext
