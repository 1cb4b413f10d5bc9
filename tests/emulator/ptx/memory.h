// How does a thread load and store? Every access is checked.
#pragma once

#include <cstring>
#include <type_traits>

#include "core/memory.h"
#include "core/scheduler.h"
#include "ptx/declarations.h"

namespace attnext {

using emulator::Site;

PTX_FN uint32_t ptx::dyn_smem() { return emulator::kSharedBase; }

template <class T>
PTX_FN T ptx::ld_shared(uint32_t address, const Site& site) {
  static_assert(sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 16);
  emulator::Thread& me = emulator::self();
  emulator::Shadow& shadow = me.block->shadow;
  shadow.require_range(address, sizeof(T), sizeof(T), "ld_shared", site);
  shadow.read(me, address, sizeof(T), "ld_shared", site);
  T value;
  memcpy(&value, me.block->shared_bytes(address), sizeof(T));
  return value;
}
template <class T>
PTX_FN void ptx::st_shared(uint32_t address, T value, const Site& site) {
  static_assert(sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 16);
  emulator::Thread& me = emulator::self();
  emulator::Shadow& shadow = me.block->shadow;
  shadow.require_range(address, sizeof(T), sizeof(T), "st_shared", site);
  shadow.write(me, address, sizeof(T), "st_shared", site);
  memcpy(me.block->shared_bytes(address), &value, sizeof(T));
}

template <class T>
PTX_FN T ptx::ld_global(const T* address, const Site& site) {
  emulator::require_global(address, sizeof(T), sizeof(T), "ld_global", site);
  return *address;
}
template <class T>
PTX_FN T ptx::ld_readonly(const T* address, const Site& site) {
  emulator::require_global(address, sizeof(T), sizeof(T), "ld_readonly", site);
  return *address;
}
template <class T>
PTX_FN void ptx::st_global(T* address, T value, const Site& site) {
  emulator::require_global(address, sizeof(T), sizeof(T), "st_global", site);
  *address = value;
}

// Everybody else may run before and after what blocks do to each other; who spins must let them.
PTX_FN uint32_t ptx::ld_acquire(const uint32_t* address, const Site& site) {
  emulator::require_global(address, 4, 4, "ld_acquire", site);
  emulator::note_spin(site);
  emulator::yield();
  return *address;
}
PTX_FN void ptx::st_release(uint32_t* address, uint32_t value, const Site& site) {
  emulator::require_global(address, 4, 4, "st_release", site);
  emulator::yield();
  emulator::machine().idle_spins = 0;
  *address = value;
}
PTX_FN uint32_t ptx::atomic_add(uint32_t* address, uint32_t value, const Site& site) {
  emulator::require_global(address, 4, 4, "atomic_add", site);
  emulator::yield();
  emulator::machine().idle_spins = 0;
  const uint32_t before = *address;
  *address = before + value;
  return before;
}
PTX_FN void ptx::red_add(float* address, float value, const Site& site) {
  emulator::require_global(address, 4, 4, "red_add", site);
  emulator::maybe_yield();
  *address += value;
}
PTX_FN void ptx::fence_device(const Site&) { emulator::maybe_yield(); }

}  // namespace attnext
