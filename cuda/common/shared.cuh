// How a block's shared memory is shared out, and how quads of elements move to and from it.
#pragma once

#include <cstring>

#include "common/element.cuh"

namespace attnext::cuda {

// Elements of 2, 4, 8 or 16 bytes, or structs of whole 8-byte words.
template <class T>
struct SharedArray {
  uint32_t address;
};

// The same carving code counts bytes (from 0, on the host) and hands out addresses.
template <class T>
ATTNEXT_HD constexpr SharedArray<T> take_shared(uint32_t* at, int count) {
  const uint32_t begin = (*at + 15) / 16 * 16;
  *at = begin + static_cast<uint32_t>(count) * static_cast<uint32_t>(sizeof(T));
  return {begin};
}

template <class T>
PTX_FN T load(SharedArray<T> array, int i) {
  return ptx::ld_shared<T>(array.address + i * static_cast<uint32_t>(sizeof(T)));
}
template <class T>
PTX_FN void store(SharedArray<T> array, int i, T value) {
  ptx::st_shared(array.address + i * static_cast<uint32_t>(sizeof(T)), value);
}

// kCount neighbours, the first a multiple of kCount: 1, 4 or 8.
template <int kCount, class A>
PTX_FN void load_values(SharedArray<A> array, int first, A (&x)[kCount]) {
  static_assert(kCount == 1 || kCount % kQuad == 0);
  if constexpr (kCount == 1) {
    x[0] = load(array, first);
  } else if constexpr (sizeof(A) == 4) {
#pragma unroll
    for (int i = 0; i < kCount; i += kQuad) {
      const float4 v = ptx::ld_shared<float4>(array.address + (first + i) * 4);
      x[i] = v.x, x[i + 1] = v.y, x[i + 2] = v.z, x[i + 3] = v.w;
    }
  } else {
#pragma unroll
    for (int i = 0; i < kCount; i += 2) {
      const double2 v = ptx::ld_shared<double2>(array.address + (first + i) * 8);
      x[i] = v.x, x[i + 1] = v.y;
    }
  }
}

template <int kCount, class A>
PTX_FN void store_values(SharedArray<A> array, int first, const A (&x)[kCount]) {
  static_assert(kCount == 1 || kCount % kQuad == 0);
  if constexpr (kCount == 1) {
    store(array, first, x[0]);
  } else if constexpr (sizeof(A) == 4) {
#pragma unroll
    for (int i = 0; i < kCount; i += kQuad)
      ptx::st_shared(array.address + (first + i) * 4, float4{x[i], x[i + 1], x[i + 2], x[i + 3]});
  } else {
#pragma unroll
    for (int i = 0; i < kCount; i += 2)
      ptx::st_shared(array.address + (first + i) * 8, double2{x[i], x[i + 1]});
  }
}

template <class T>
PTX_FN T load_struct(SharedArray<T> array, int i) {
  static_assert(sizeof(T) % 8 == 0);
  uint64_t words[sizeof(T) / 8];
#pragma unroll
  for (int word = 0; word < static_cast<int>(sizeof(T) / 8); ++word)
    words[word] = ptx::ld_shared<uint64_t>(array.address + i * sizeof(T) + 8 * word);
  T value;
  memcpy(&value, words, sizeof(T));
  return value;
}
template <class T>
PTX_FN void store_struct(SharedArray<T> array, int i, const T& value) {
  static_assert(sizeof(T) % 8 == 0);
  uint64_t words[sizeof(T) / 8];
  memcpy(words, &value, sizeof(T));
#pragma unroll
  for (int word = 0; word < static_cast<int>(sizeof(T) / 8); ++word)
    ptx::st_shared(array.address + i * sizeof(T) + 8 * word, words[word]);
}

}  // namespace attnext::cuda
