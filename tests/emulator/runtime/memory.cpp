// Allocating, freeing and copying as the host sees them.
#include "core/memory.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <vector>

#include "core/report.h"
#include "runtime/queue.h"

// What it has given out, and what came back and is kept for the next allocation.
struct CUmemPoolHandle_st {
  uint64_t threshold = 0;
  std::map<void*, size_t> given;
  size_t kept = 0;
};

namespace {

using emulator::MemoryKind;

constexpr size_t kTotalMemory = size_t{8} << 30;

std::vector<cudaMemPool_t>& pools() {
  static std::vector<cudaMemPool_t> all;
  return all;
}

cudaMemPool_t pool_of(void* pointer) {
  for (const cudaMemPool_t pool : pools()) {
    if (pool->given.contains(pointer)) return pool;
  }
  return nullptr;
}

// Ordinary allocation is forbidden to a thread whose, or anybody's, stream is being captured,
// unless it says that it knows what it does.
thread_local cudaStreamCaptureMode capture_mode = cudaStreamCaptureModeGlobal;

cudaError_t refuse_in_capture() {
  const bool is_refused =
      emulator::is_captured(nullptr) && capture_mode != cudaStreamCaptureModeRelaxed;
  return is_refused ? emulator::remember(cudaErrorStreamCaptureUnsupported) : cudaSuccess;
}

cudaError_t allocate(const char* function, void** pointer, size_t bytes, MemoryKind kind) {
  const std::lock_guard<std::recursive_mutex> lock(emulator::runtime_lock());
  *pointer = nullptr;
  if (const cudaError_t error = emulator::take_failure(); error != cudaSuccess) return error;
  if (bytes == 0) return cudaSuccess;
  if (!emulator::is_made_to_fail(function) && bytes <= kTotalMemory &&
      emulator::allocated_bytes() <= kTotalMemory - bytes) {
    *pointer = emulator::allocate(bytes, kind);
  }
  return *pointer != nullptr ? cudaSuccess : emulator::remember(cudaErrorMemoryAllocation);
}

void release(const char* function, void* pointer) {
  if (const char* wrong = emulator::release(pointer)) {
    emulator::set_failure(cudaErrorInvalidValue, emulator::text(function, ": ", wrong));
  }
}

bool is_device(const void* pointer) {
  const emulator::Allocation* a = emulator::find_allocation(pointer, 0);
  return a != nullptr && a->kind == MemoryKind::kDevice;
}

bool is_pageable(const void* pointer) { return emulator::find_allocation(pointer, 0) == nullptr; }

// What is wrong with one side of a copy, or empty. `as_device`: the copy's kind says so.
std::string refuse(const void* pointer, size_t bytes, bool as_device, const char* side) {
  const emulator::Allocation* a = emulator::find_allocation(pointer, 0);
  if (as_device != is_device(pointer)) {
    return emulator::text(side, " of the copy is ", as_device ? "no" : "a", " device pointer");
  }
  if (a != nullptr && emulator::find_allocation(pointer, bytes) == nullptr) {
    return emulator::text(side, " of the copy: ", bytes, " bytes at offset ",
                          static_cast<const uint8_t*>(pointer) - a->begin, " of an allocation of ",
                          a->bytes);
  }
  return {};
}

std::string refuse_copy(const void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  if (kind == cudaMemcpyDefault) {
    kind = static_cast<cudaMemcpyKind>(2 * is_device(from) + is_device(to));
  }
  std::string wrong = refuse(to, bytes, kind % 2 == 1, "the target");
  return wrong.empty() ? refuse(from, bytes, kind / 2 == 1, "the source") : wrong;
}

cudaError_t copy(const char* function, void* to, const void* from, size_t bytes,
                 cudaMemcpyKind kind, cudaStream_t stream, bool waits) {
  if (emulator::is_made_to_fail(function)) return emulator::remember(cudaErrorInvalidValue);
  if (!emulator::is_stream(stream)) return emulator::remember(cudaErrorInvalidResourceHandle);
  if (bytes == 0) return emulator::take_failure();
  if (const std::string wrong = refuse_copy(to, from, bytes, kind); !wrong.empty()) {
    return emulator::remember(cudaErrorInvalidValue, emulator::text(function, ": ", wrong));
  }
  // Ordinary memory of the host is read, or written, before the call returns.
  const bool is_finished_first = waits || is_pageable(to) || is_pageable(from);
  if (is_finished_first) {
    if (const cudaError_t error = emulator::refuse_to_wait(stream)) return error;
  }
  emulator::enqueue(stream, [=] { std::memmove(to, from, bytes); });
  if (is_finished_first) emulator::drain(stream);
  return emulator::take_failure();
}

cudaError_t fill(const char* function, void* to, int value, size_t bytes, cudaStream_t stream,
                 bool waits) {
  if (emulator::is_made_to_fail(function)) return emulator::remember(cudaErrorInvalidValue);
  if (!emulator::is_stream(stream)) return emulator::remember(cudaErrorInvalidResourceHandle);
  if (bytes == 0) return emulator::take_failure();
  if (const std::string wrong = refuse(to, bytes, true, "the target"); !wrong.empty()) {
    return emulator::remember(cudaErrorInvalidValue, emulator::text(function, ": ", wrong));
  }
  emulator::enqueue(stream, [=] { std::memset(to, value, bytes); });
  if (waits) emulator::drain(stream);
  return emulator::take_failure();
}

}  // namespace

void emulator::trim_pools() {
  for (const cudaMemPool_t pool : pools()) {
    pool->kept = std::min(pool->kept, static_cast<size_t>(pool->threshold));
  }
}

size_t emulator::kept_bytes() {
  size_t bytes = 0;
  for (const cudaMemPool_t pool : pools()) bytes += pool->kept;
  return bytes;
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(*mode, capture_mode);
  return cudaSuccess;
}

cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps*) {
  const std::lock_guard<std::recursive_mutex> lock(emulator::runtime_lock());
  *pool = nullptr;
  if (const cudaError_t error = refuse_in_capture()) return error;
  if (emulator::is_made_to_fail("cudaMemPoolCreate")) {
    return emulator::remember(cudaErrorMemoryAllocation);
  }
  pools().push_back(new CUmemPoolHandle_st);
  *pool = pools().back();
  return cudaSuccess;
}
cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool) {
  const std::lock_guard<std::recursive_mutex> lock(emulator::runtime_lock());
  std::erase(pools(), pool);
  delete pool;
  return cudaSuccess;
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr, void* value) {
  const std::lock_guard<std::recursive_mutex> lock(emulator::runtime_lock());
  if (emulator::is_made_to_fail("cudaMemPoolSetAttribute")) {
    return emulator::remember(cudaErrorInvalidValue);
  }
  pool->threshold = *static_cast<uint64_t*>(value);
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  const std::lock_guard<std::recursive_mutex> lock(emulator::runtime_lock());
  if (const cudaError_t error = refuse_in_capture()) return error;
  return allocate("cudaMalloc", pointer, bytes, MemoryKind::kDevice);
}
cudaError_t cudaMallocFromPoolAsync(void** pointer, size_t bytes, cudaMemPool_t pool,
                                    cudaStream_t stream) {
  const std::lock_guard<std::recursive_mutex> lock(emulator::runtime_lock());
  *pointer = nullptr;
  if (!emulator::is_stream(emulator::resolve(stream))) {
    return emulator::remember(cudaErrorInvalidResourceHandle);
  }
  const cudaError_t error =
      allocate("cudaMallocFromPoolAsync", pointer, bytes, MemoryKind::kDevice);
  if (*pointer == nullptr) return error;
  pool->given[*pointer] = bytes;
  pool->kept -= std::min(pool->kept, bytes);
  return cudaSuccess;
}
cudaError_t cudaMallocHost(void** pointer, size_t bytes, unsigned) {
  if (const cudaError_t error = refuse_in_capture()) return error;
  return allocate("cudaMallocHost", pointer, bytes, MemoryKind::kPinned);
}
cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned) {
  return allocate("cudaHostAlloc", pointer, bytes, MemoryKind::kPinned);
}

cudaError_t cudaFree(void* pointer) {
  const std::lock_guard<std::recursive_mutex> lock(emulator::runtime_lock());
  if (const cudaError_t error = emulator::refuse_to_wait(nullptr)) return error;
  emulator::drain_all();
  if (pointer != nullptr) release("cudaFree", pointer);
  return emulator::take_failure();
}
cudaError_t cudaFreeAsync(void* pointer, cudaStream_t stream) {
  const std::lock_guard<std::recursive_mutex> lock(emulator::runtime_lock());
  if (pointer == nullptr) return cudaSuccess;
  const cudaMemPool_t pool = pool_of(pointer);
  if (pool == nullptr) return emulator::remember(cudaErrorInvalidValue);
  emulator::enqueue(emulator::resolve(stream), [=] {
    pool->kept += pool->given[pointer];
    pool->given.erase(pointer);
    release("cudaFreeAsync", pointer);
  });
  return emulator::take_failure();
}
cudaError_t cudaFreeHost(void* pointer) {
  const std::lock_guard<std::recursive_mutex> lock(emulator::runtime_lock());
  emulator::drain_all();
  if (pointer != nullptr) release("cudaFreeHost", pointer);
  return emulator::take_failure();
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  const std::lock_guard<std::recursive_mutex> lock(emulator::runtime_lock());
  auto* const p = const_cast<void*>(pointer);
  *attributes = {cudaMemoryTypeUnregistered, 0, nullptr, p};
  if (is_device(pointer))
    *attributes = {cudaMemoryTypeDevice, 0, p, nullptr};
  else if (!is_pageable(pointer))
    *attributes = {cudaMemoryTypeHost, 0, p, p};
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  const std::lock_guard<std::recursive_mutex> lock(emulator::runtime_lock());
  return copy("cudaMemcpy", to, from, bytes, kind, emulator::resolve(nullptr), true);
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  const std::lock_guard<std::recursive_mutex> lock(emulator::runtime_lock());
  return copy("cudaMemcpyAsync", to, from, bytes, kind, emulator::resolve(stream), false);
}
cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  const std::lock_guard<std::recursive_mutex> lock(emulator::runtime_lock());
  return fill("cudaMemset", to, value, bytes, emulator::resolve(nullptr), true);
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  const std::lock_guard<std::recursive_mutex> lock(emulator::runtime_lock());
  return fill("cudaMemsetAsync", to, value, bytes, emulator::resolve(stream), false);
}
