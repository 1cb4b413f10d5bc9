// Memory of the device: poisoned, fenced by guard regions, and known by its bounds.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/shadow.h"

namespace emulator {

constexpr int kPoison = 0xFF;  // bytes of NaN in every float type, and of -1

enum class MemoryKind { kDevice, kPinned };

struct Allocation {
  uint8_t* begin;
  size_t bytes;
  MemoryKind kind;
  uint8_t* mapping;  // with its guards
  size_t mapping_bytes;
};

// Null where there is no memory. Aligned to 256 bytes; ends as near to a guard as that permits.
void* allocate(size_t bytes, MemoryKind kind);

// What went wrong with it, or null: not an allocation, or written beyond its end.
const char* release(void* pointer);

// The allocation that holds [pointer, pointer + bytes), or null.
const Allocation* find_allocation(const void* pointer, size_t bytes);
size_t allocated_bytes();

// Fails unless a kernel may access this.
void require_global(const void* pointer, size_t bytes, size_t align, const char* what,
                    const Site& site);

// While one lives, memory of the device can be touched; otherwise the host's touch is a fault, as
// it is on a real one.
class DeviceMemoryOpen {
 public:
  DeviceMemoryOpen();
  ~DeviceMemoryOpen();
  DeviceMemoryOpen(const DeviceMemoryOpen&) = delete;
  DeviceMemoryOpen& operator=(const DeviceMemoryOpen&) = delete;
};

// Lies the address in a guard region?
bool is_memory_guard(uintptr_t address);

}  // namespace emulator
