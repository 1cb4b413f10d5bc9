// Which instances there are for a device and a problem, and what keeps a problem from this path.
#pragma once

#include <climits>
#include <type_traits>
#include <utility>

#include "common/element.cuh"
#include "kernels.h"
#include "mma/float32.cuh"
#include "mma/tile_shape.h"

namespace attnext::cuda::mma {

inline int64_t widest(const Problem& p) { return max_of(p.head_dim, p.head_dim_v); }

// The first instance of a list that holds the problem's rows, has `features` (or the options beside
// them) and runs on the device; null: there is none.
template <size_t kCount>
const Instance* find_instance(const Instance (&instances)[kCount], const Problem& p,
                              Features features, const Device& device) {
  for (const Instance& i : instances) {
    const bool fits_architecture = (i.budget == Budget::kTuring) == (device.arch < 80);
    const bool is_enough = i.features == features ||
                           (features == Features::kPlain && i.features == Features::kOptions);
    const bool holds = i.width >= widest(p) && i.element_bytes == size_of(dtype_of(p.q));
    if (holds && fits_architecture && is_enough) return &i;
  }
  return nullptr;
}

// `run(std::integral_constant<size_t, index>)` of the instance `chosen`, which is one of the list.
template <size_t kCount, class F>
void with_instance(const Instance (&instances)[kCount], const Instance* chosen, F&& run) {
  [&]<size_t... kIndex>(std::index_sequence<kIndex...>) {
    ((chosen == instances + kIndex ? run(std::integral_constant<size_t, kIndex>{}) : void()), ...);
  }(std::make_index_sequence<kCount>{});
}

// sm_75 multiplies float16 only.
template <class Element>
constexpr bool has_element(const Instance& i) {
  return i.element_bytes == sizeof(typename Element::Stored) &&
         (i.budget != Budget::kTuring || Element::kDType == DType::kFloat16);
}

// `run(element)` for the type of q's elements.
template <class F>
void with_element(const Problem& p, F&& run) {
  if (dtype_of(p.q) == DType::kFloat16) return run(Float16{});
  if (dtype_of(p.q) == DType::kBFloat16) return run(BFloat16{});
  run(Float32{});
}

// Null where this path has instances for q, k and v.
inline const char* why_no_instance(const Problem& p, bool allows_tf32, const Device& device) {
  const DType dtype = dtype_of(p.q);
  if (dtype == DType::kFloat64) return "q is float64";
  if (dtype == DType::kFloat32 && !allows_tf32)
    return "q is float32, and set_float32_precision says exact";
  if (dtype == DType::kFloat32 && device.arch < 80)
    return "q is float32 and the device is older than sm_80";
  if (dtype == DType::kBFloat16 && device.arch < 80)
    return "q is bfloat16 and the device is older than sm_80";
  if (p.score != Score::kDot && p.score != Score::kCosine) return "score is not dot or cosine";
  if (dtype == DType::kFloat32 && widest(p) > 128)
    return "q is float32 and head_dim is larger than 128";
  if (widest(p) > 256) return "head_dim is larger than 256";
  if (p.head_dim_v < 1) return "head_dim_v is 0";
  if (p.batch > INT32_MAX || p.num_heads_kv > INT32_MAX) return "batch is larger than 2^31";
  return nullptr;
}

// As many blocks as asked for, in two axes where one is not enough; the last ones may be too many.
inline dim3 grid_of(int64_t blocks) {
  const int64_t rows = max_of(1, divide_up(blocks, INT32_MAX));
  return dim3(static_cast<unsigned>(divide_up(blocks, rows)), static_cast<unsigned>(rows));
}

}  // namespace attnext::cuda::mma
