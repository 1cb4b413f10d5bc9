// Which instances there are for a device and a problem, and what keeps a problem from this path.
#pragma once

#include <climits>

#include "kernels.h"
#include "mma/tile_shape.h"

namespace attnext::cuda::mma {

inline Budget budget_of(const Device& device, int width, int widest_shared) {
  if (device.arch < 80) return Budget::kTuring;
  const auto available = static_cast<uint32_t>(device.shared_memory_per_block);
  return width > widest_shared && available < bytes_of(Budget::kLarge) ? Budget::kSmall
                                                                       : Budget::kLarge;
}

// Null where this path has instances for q, k and v.
inline const char* why_no_instance(const Problem& p, const Device& device) {
  const DType dtype = dtype_of(p.q);
  const bool is_half = dtype == DType::kFloat16, is_bfloat = dtype == DType::kBFloat16;
  if (!is_half && !is_bfloat) return "q is not float16 or bfloat16";
  if (device.arch < 75) return "the device is older than sm_75";
  if (is_bfloat && device.arch < 80) return "q is bfloat16 and the device is older than sm_80";
  if (p.score != Score::kDot && p.score != Score::kCosine) return "score is not dot or cosine";
  if (instance_width(max_of(p.head_dim, p.head_dim_v)) == 0) return "head_dim is larger than 256";
  if (p.head_dim_v < 1) return "head_dim_v is 0";
  if (p.batch > INT32_MAX || p.num_heads_kv > INT32_MAX) return "batch is larger than 2^31";
  return nullptr;
}

// `run(std::integral_constant<int, width>)` of the width that holds a row.
template <class F>
auto with_width(int64_t head_dim, F&& run) {
  switch (instance_width(head_dim)) {
    case 32:
      return run(std::integral_constant<int, 32>{});
    case 64:
      return run(std::integral_constant<int, 64>{});
    case 96:
      return run(std::integral_constant<int, 96>{});
    case 128:
      return run(std::integral_constant<int, 128>{});
    case 192:
      return run(std::integral_constant<int, 192>{});
    default:
      return run(std::integral_constant<int, 256>{});
  }
}

// As many blocks as asked for, in two axes where one is not enough; the last ones may be too many.
inline dim3 grid_of(int64_t blocks) {
  const int64_t rows = divide_up(blocks, INT32_MAX);
  return dim3(static_cast<unsigned>(divide_up(blocks, rows)), static_cast<unsigned>(rows));
}

}  // namespace attnext::cuda::mma
