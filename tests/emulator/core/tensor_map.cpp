// Encoding tensor maps with the driver's checks, and copying boxes.
#include "core/tensor_map.h"

#include <cuda.h>

#include <cstring>

#include "core/memory.h"
#include "core/report.h"

namespace emulator {
namespace {

constexpr uint32_t kMagic = 0x544D4150, kChunk = 16, kMaxBox = 256;

uint32_t bytes_of(CUtensorMapDataType type) {
  return type == CU_TENSOR_MAP_DATA_TYPE_FLOAT32 ? 4 : 2;
}

uint32_t bytes_of(CUtensorMapSwizzle swizzle) {
  return swizzle == CU_TENSOR_MAP_SWIZZLE_NONE ? 0 : 16u << swizzle;
}

// The start of the row at `index` (of the dimensions but the innermost), null outside the tensor.
uint8_t* row_of(const TensorMap& map, const int64_t* index) {
  uint8_t* row = map.base;
  for (int d = 1; d < map.rank; ++d) {
    if (index[d] < 0 || static_cast<uint64_t>(index[d]) >= map.extents[d]) return nullptr;
    row += index[d] * static_cast<int64_t>(map.byte_strides[d]);
  }
  return row;
}

void copy_row(const TensorMap& map, uint8_t* row, int64_t first, uint8_t* shared, uint32_t address,
              bool loads) {
  for (uint32_t i = 0; i < map.box[0]; ++i) {
    uint8_t* inside = shared + swizzled(address + i * map.element_bytes, map.swizzle_bytes);
    const int64_t element = first + i;
    const bool exists =
        row != nullptr && element >= 0 && static_cast<uint64_t>(element) < map.extents[0];
    uint8_t* outside = exists ? row + element * map.element_bytes : nullptr;
    if (loads && exists) {
      memcpy(inside, outside, map.element_bytes);
    } else if (loads) {
      memset(inside, 0, map.element_bytes);
    } else if (exists) {
      memcpy(outside, inside, map.element_bytes);
    }
  }
}

}  // namespace

uint32_t TensorMap::box_bytes() const {
  uint32_t bytes = element_bytes;
  for (int d = 0; d < rank; ++d) bytes *= box[d];
  return bytes;
}

TensorMap decode_map(const void* map, int rank, uint32_t shared, const Site& site) {
  TensorMap decoded;
  memcpy(&decoded, map, sizeof decoded);
  if (decoded.magic != kMagic) fail(site, "BAD TENSOR MAP: it was never encoded");
  if (decoded.rank != rank) {
    fail(site, "BAD TENSOR MAP: of rank ", int{decoded.rank}, ", used as of rank ", rank);
  }
  const uint32_t align = decoded.swizzle_bytes != 0 ? 8u * decoded.swizzle_bytes : 128u;
  if (shared % align != 0) {
    fail(site, "MISALIGNED: a tensor copy at shared address ", hexadecimal(shared),
         ", which is no multiple of ", align);
  }
  return decoded;
}

uint32_t swizzled(uint32_t address, uint32_t row_bytes) {
  const uint32_t mask = row_bytes == 128  ? 0x70
                        : row_bytes == 64 ? 0x30
                        : row_bytes == 32 ? 0x10
                                          : 0;
  return address ^ (address >> 3 & mask);
}

void copy_box(const TensorMap& map, const int32_t* coordinates, uint8_t* shared, uint32_t address,
              bool loads) {
  int64_t place[kMaxRank] = {};
  for (;;) {
    int64_t index[kMaxRank] = {};
    for (int d = 1; d < map.rank; ++d) index[d] = coordinates[d] + place[d];
    copy_row(map, row_of(map, index), coordinates[0], shared, address, loads);
    address += map.box[0] * map.element_bytes;
    int d = 1;
    for (; d < map.rank && ++place[d] == map.box[d]; ++d) place[d] = 0;
    if (d == map.rank) return;
  }
}

}  // namespace emulator

CUresult cuTensorMapEncodeTiled(CUtensorMap* out, CUtensorMapDataType type, cuuint32_t rank,
                                void* base, const cuuint64_t* extents,
                                const cuuint64_t* byte_strides, const cuuint32_t* box,
                                const cuuint32_t* element_strides, CUtensorMapInterleave,
                                CUtensorMapSwizzle swizzle, CUtensorMapL2promotion,
                                CUtensorMapFloatOOBfill) {
  using namespace emulator;
  TensorMap map{};
  if (rank < 1 || rank > kMaxRank || reinterpret_cast<uintptr_t>(base) % 16 != 0 ||
      reinterpret_cast<uintptr_t>(out) % 64 != 0) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  map.magic = kMagic;
  map.rank = static_cast<uint8_t>(rank);
  map.element_bytes = static_cast<uint8_t>(bytes_of(type));
  map.swizzle_bytes = static_cast<uint8_t>(bytes_of(swizzle));
  map.base = static_cast<uint8_t*>(base);
  uint64_t reach = map.element_bytes;
  for (cuuint32_t d = 0; d < rank; ++d) {
    map.extents[d] = extents[d];
    map.byte_strides[d] = d == 0 ? map.element_bytes : byte_strides[d - 1];
    map.box[d] = box[d];
    const bool is_bad = extents[d] == 0 || box[d] == 0 || box[d] > kMaxBox ||
                        element_strides[d] != 1 || (d > 0 && map.byte_strides[d] % 16 != 0);
    if (is_bad) return CUDA_ERROR_INVALID_VALUE;
    reach += (extents[d] - 1) * map.byte_strides[d];
  }
  const uint32_t row = map.box[0] * map.element_bytes;
  if (row % kChunk != 0 || (map.swizzle_bytes != 0 && row > map.swizzle_bytes)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  // Two things the driver would accept: rows shorter than the swizzle's span, which this emulator
  // does not model, and a tensor that is not all there.
  if (map.swizzle_bytes != 0 && row != map.swizzle_bytes) return CUDA_ERROR_INVALID_VALUE;
  if (find_allocation(base, reach) == nullptr) return CUDA_ERROR_INVALID_VALUE;
  memset(out, 0, sizeof *out);
  static_assert(sizeof map <= sizeof *out);
  memcpy(out, &map, sizeof map);
  return CUDA_SUCCESS;
}
