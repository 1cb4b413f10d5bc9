// How a strided tensor is read and written as one run of elements: the order in which it is staged.
#include "host/packing.h"

#include <cstring>

namespace attnext::cuda {
namespace {

// The axes that count, neighbours joined where one continues the other: a contiguous tensor is a
// single run.
struct Runs {
  int64_t extents[4] = {1, 1, 1, 1}, strides[4] = {0, 0, 0, 0};
  int num_axes = 0;

  explicit Runs(const TensorView& t) {
    for (int axis = 0; axis < t.ndim; ++axis) {
      if (t.strides[axis] == 0 || t.shape[axis] == 1) continue;
      const int last = num_axes - 1;
      if (last >= 0 && strides[last] == t.strides[axis] * t.shape[axis]) {
        extents[last] *= t.shape[axis];
        strides[last] = t.strides[axis];
      } else {
        extents[num_axes] = t.shape[axis];
        strides[num_axes++] = t.strides[axis];
      }
    }
  }

  // Where element `index` of all axes but the last begins, in elements.
  int64_t offset(int64_t index) const {
    int64_t offset = 0;
    for (int axis = num_axes - 2; axis >= 0; --axis) {
      offset += index % extents[axis] * strides[axis];
      index /= extents[axis];
    }
    return offset;
  }
};

template <class T>
void copy_strided(T* target, int64_t target_stride, const T* source, int64_t source_stride,
                  int64_t count) {
  if (target_stride == 1 && source_stride == 1) {
    std::memcpy(target, source, static_cast<size_t>(count) * sizeof(T));
    return;
  }
  for (int64_t i = 0; i < count; ++i) target[i * target_stride] = source[i * source_stride];
}

// Calls move(element offset in the tensor, its stride, place in the packed run, count).
template <class Move>
void for_runs(const TensorView& t, int64_t first, int64_t count, Move move) {
  const Runs runs(t);
  const int last = runs.num_axes - 1;
  const int64_t inner = last >= 0 ? runs.extents[last] : 1;
  const int64_t stride = last >= 0 ? runs.strides[last] : 1;
  for (int64_t done = 0; done < count;) {
    const int64_t row = (first + done) / inner, column = (first + done) % inner;
    const int64_t length = min_of(inner - column, count - done);
    move(runs.offset(row) + column * stride, stride, done, length);
    done += length;
  }
}

template <class T>
void gather_as(const TensorView& t, int64_t first, int64_t count, T* packed) {
  const T* const data = static_cast<const T*>(t.data);
  for_runs(t, first, count, [&](int64_t offset, int64_t stride, int64_t place, int64_t length) {
    copy_strided(packed + place, 1, data + offset, stride, length);
  });
}

template <class T>
void scatter_as(const TensorView& t, int64_t first, int64_t count, const T* packed) {
  T* const data = static_cast<T*>(t.data);
  for_runs(t, first, count, [&](int64_t offset, int64_t stride, int64_t place, int64_t length) {
    copy_strided(data + offset, stride, packed + place, int64_t{1}, length);
  });
}

}  // namespace

TensorView packed_view(const TensorView& t) {
  TensorView view = t;
  int64_t stride = 1;
  for (int axis = t.ndim - 1; axis >= 0; --axis) {
    if (t.strides[axis] == 0 && t.shape[axis] != 1) continue;
    view.strides[axis] = stride;
    stride *= max_of(t.shape[axis], 1);
  }
  return view;
}

int64_t packed_count(const TensorView& t) {
  int64_t count = is_present(t) ? 1 : 0;
  for (int axis = 0; axis < t.ndim; ++axis) {
    count *= t.strides[axis] == 0 ? min_of(t.shape[axis], 1) : t.shape[axis];
  }
  return count;
}

void gather(const TensorView& t, int64_t first, int64_t count, void* packed) {
  switch (kDTypes[t.dtype].size) {
    case 8:
      return gather_as(t, first, count, static_cast<uint64_t*>(packed));
    case 4:
      return gather_as(t, first, count, static_cast<uint32_t*>(packed));
    case 2:
      return gather_as(t, first, count, static_cast<uint16_t*>(packed));
    default:
      return gather_as(t, first, count, static_cast<uint8_t*>(packed));
  }
}

void scatter(const TensorView& t, int64_t first, int64_t count, const void* packed) {
  switch (kDTypes[t.dtype].size) {
    case 8:
      return scatter_as(t, first, count, static_cast<const uint64_t*>(packed));
    case 4:
      return scatter_as(t, first, count, static_cast<const uint32_t*>(packed));
    case 2:
      return scatter_as(t, first, count, static_cast<const uint16_t*>(packed));
    default:
      return scatter_as(t, first, count, static_cast<const uint8_t*>(packed));
  }
}

}  // namespace attnext::cuda
