// Allocating with guards, and finding what an address belongs to.
#include "core/memory.h"

#include <sys/mman.h>

#include <cstring>
#include <map>

#include "core/report.h"

namespace emulator {
namespace {

// A tile of rows beyond the end must not reach what lies behind it.
constexpr size_t kGuardBytes = size_t{4} << 20, kAlign = 256, kPage = 4096;

struct Registry {
  std::map<uintptr_t, Allocation> by_begin;
  const Allocation* last = nullptr;  // found
  size_t bytes = 0;
  int open = 0;  // DeviceMemoryOpen alive
};

Registry& registry() {
  static Registry all;
  return all;
}

bool contains(const Allocation& a, uintptr_t begin, size_t bytes) {
  const auto first = reinterpret_cast<uintptr_t>(a.begin);
  return begin >= first && bytes <= a.bytes && begin - first <= a.bytes - bytes;
}

void set_access(const Allocation& a, int access) {
  mprotect(a.mapping + kGuardBytes, a.mapping_bytes - 2 * kGuardBytes, access);
}

void set_access_of_device(int access) {
  for (const auto& [begin, a] : registry().by_begin) {
    if (a.kind == MemoryKind::kDevice) set_access(a, access);
  }
}

// The allocation whose mapping, guards included, holds the address, or null.
const Allocation* nearest(const void* pointer) {
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  for (const auto& [begin, a] : registry().by_begin) {
    const auto first = reinterpret_cast<uintptr_t>(a.mapping);
    if (address >= first && address < first + a.mapping_bytes) return &a;
  }
  return nullptr;
}

size_t rounded(size_t n, size_t to) { return (n + to - 1) / to * to; }

}  // namespace

void* allocate(size_t bytes, MemoryKind kind) {
  const size_t pages = rounded(rounded(bytes, kAlign), kPage), all = pages + 2 * kGuardBytes;
  if (bytes > SIZE_MAX / 2) return nullptr;
  void* mapping = mmap(nullptr, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) return nullptr;
  auto* first_page = static_cast<uint8_t*>(mapping) + kGuardBytes;
  if (mprotect(first_page, pages, PROT_READ | PROT_WRITE) != 0) {
    munmap(mapping, all);
    return nullptr;
  }
  uint8_t* begin = first_page + pages - rounded(bytes, kAlign);
  memset(begin, kPoison, rounded(bytes, kAlign));
  const Allocation a{begin, bytes, kind, static_cast<uint8_t*>(mapping), all};
  if (kind == MemoryKind::kDevice && registry().open == 0) set_access(a, PROT_NONE);
  registry().by_begin[reinterpret_cast<uintptr_t>(begin)] = a;
  registry().bytes += bytes;
  return begin;
}

const char* release(void* pointer) {
  Registry& all = registry();
  const auto found = all.by_begin.find(reinterpret_cast<uintptr_t>(pointer));
  if (found == all.by_begin.end()) return "the pointer is not the start of an allocation";
  const Allocation a = found->second;
  set_access(a, PROT_READ);
  bool is_intact = true;
  for (size_t i = a.bytes; i < rounded(a.bytes, kAlign); ++i) {
    is_intact = is_intact && a.begin[i] == kPoison;
  }
  all.bytes -= a.bytes;
  all.by_begin.erase(found);
  all.last = nullptr;
  munmap(a.mapping, a.mapping_bytes);
  return is_intact ? nullptr : "something wrote beyond the end of the allocation";
}

const Allocation* find_allocation(const void* pointer, size_t bytes) {
  Registry& all = registry();
  const auto begin = reinterpret_cast<uintptr_t>(pointer);
  if (all.last != nullptr && contains(*all.last, begin, bytes)) return all.last;
  auto next = all.by_begin.upper_bound(begin);
  if (next == all.by_begin.begin()) return nullptr;
  const Allocation& candidate = std::prev(next)->second;
  if (!contains(candidate, begin, bytes)) return nullptr;
  all.last = &candidate;
  return &candidate;
}

size_t allocated_bytes() { return registry().bytes; }

void require_global(const void* pointer, size_t bytes, size_t align, const char* what,
                    const Site& site) {
  if (reinterpret_cast<uintptr_t>(pointer) % align != 0) {
    fail(site, "MISALIGNED: ", what, " at ", pointer, ", which is no multiple of ", align);
  }
  if (find_allocation(pointer, bytes) != nullptr) return;
  const Allocation* near = nearest(pointer);
  if (near == nullptr) {
    fail(site, "OUT OF BOUNDS: ", what, " of ", bytes, " bytes at ", pointer,
         ", which is no memory of the device");
  }
  fail(site, "OUT OF BOUNDS: ", what, " of ", bytes, " bytes at offset ",
       static_cast<const uint8_t*>(pointer) - near->begin, " of an allocation of ", near->bytes);
}

DeviceMemoryOpen::DeviceMemoryOpen() {
  if (registry().open++ == 0) set_access_of_device(PROT_READ | PROT_WRITE);
}
DeviceMemoryOpen::~DeviceMemoryOpen() {
  if (--registry().open == 0) set_access_of_device(PROT_NONE);
}

bool is_memory_guard(uintptr_t address) {
  return nearest(reinterpret_cast<const void*>(address)) != nullptr;
}

}  // namespace emulator
