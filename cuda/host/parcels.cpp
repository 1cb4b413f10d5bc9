// How small arrays of the host reach the device while nothing waits and the host's memory changes:
// as parameters of kernels, or through pinned memory that is left alone until it has been read.
// A copy from ordinary memory may wait for the stream ("API synchronization behavior" of CUDA's
// runtime), and one that a graph repeats would read what has been freed.
#include "host/parcels.h"

#include <bit>
#include <cstring>
#include <mutex>
#include <vector>

#include "host/capture.h"

namespace attnext::cuda {
namespace {

// Up to two launches: a copy takes three calls, with its event and the question to the one before.
constexpr int64_t kMostParcels = 2;
constexpr int64_t kParcelBytes = Parcel::kChunks * static_cast<int64_t>(sizeof(uint4));

// More than this many tables on their way are parcels again: the memory is pinned for good.
constexpr size_t kMostBlocks = 64;
constexpr int64_t kLeastBytes = int64_t{64} << 10;

struct Block {
  int device;
  int64_t capacity;
  void* memory;
  cudaEvent_t read;  // the copy that was made last has read it
};

struct Pool {
  std::mutex mutex;
  std::vector<Block> blocks;  // that no thread fills; what they held may not have been read yet
  size_t count = 0;           // of all there are
};

// Never destroyed: CUDA may be gone by the time destructors of static objects run.
Pool& pool() {
  static Pool* const the_pool = new Pool;
  return *the_pool;
}

bool has_been_read(const Block& block) {
  const cudaError_t code = cudaEventQuery(block.read);
  if (code == cudaErrorNotReady) {
    cudaGetLastError();  // no error, and none that the caller should find
    return false;
  }
  require_ok(code, "cudaEventQuery");
  return true;
}

Block open_block(int device, int64_t bytes) {
  const auto capacity =
      static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(max_of(bytes, kLeastBytes))));
  Block block{device, capacity, nullptr, nullptr};
  require_ok(cudaMallocHost(&block.memory, static_cast<size_t>(capacity)), "cudaMallocHost");
  const cudaError_t code = cudaEventCreateWithFlags(&block.read, cudaEventDisableTiming);
  if (code != cudaSuccess) cudaFreeHost(block.memory);
  require_ok(code, "cudaEventCreateWithFlags");
  return block;
}

// False: there are enough of them, and none is free.
bool acquire(int device, int64_t bytes, Block& found) {
  const SetupInCapture setup;  // neither questions to events nor new memory are part of a capture
  const std::lock_guard lock(pool().mutex);
  std::vector<Block>& blocks = pool().blocks;
  for (Block& block : blocks) {
    if (block.device != device || block.capacity < bytes || !has_been_read(block)) continue;
    found = block;
    block = blocks.back();
    blocks.pop_back();
    return true;
  }
  if (pool().count >= kMostBlocks) return false;
  blocks.reserve(pool().count + 1);  // so that release need not allocate
  found = open_block(device, bytes);
  ++pool().count;
  return true;
}

void release(const Block& block) noexcept {
  const std::lock_guard lock(pool().mutex);
  pool().blocks.push_back(block);
}

void send_parcels(const char* source, int64_t bytes, char* target, Launch& launch) {
  for (int64_t begin = 0; begin < bytes; begin += kParcelBytes) {
    Parcel parcel;
    const int64_t size = min_of(kParcelBytes, bytes - begin);
    parcel.target = reinterpret_cast<uint4*>(target + begin);
    parcel.num_chunks = size / static_cast<int64_t>(sizeof(uint4));
    std::memcpy(parcel.chunks, source + begin, static_cast<size_t>(size));
    require_ok(simt::deliver(parcel, launch));
  }
}

}  // namespace

void send_small(const char* source, int64_t bytes, char* target, Launch& launch) {
  Block block{};
  const bool is_short = bytes <= kMostParcels * kParcelBytes;
  if (is_short || is_captured(launch.stream) || !acquire(launch.device.ordinal, bytes, block)) {
    return send_parcels(source, bytes, target, launch);
  }
  std::memcpy(block.memory, source, static_cast<size_t>(bytes));
  const cudaError_t copied = cudaMemcpyAsync(target, block.memory, static_cast<size_t>(bytes),
                                             cudaMemcpyHostToDevice, launch.stream);
  // A block whose copy has no event is not used again.
  require_ok(cudaEventRecord(block.read, launch.stream), "cudaEventRecord");
  release(block);
  require_ok(copied, "cudaMemcpyAsync of the options");
}

}  // namespace attnext::cuda
