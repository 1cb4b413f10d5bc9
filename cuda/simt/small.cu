// The passes without products: joining partial results, the dropout mask, sums of per-head parts,
// small arrays from parameters, and what forward says about itself.
#include <cstdio>

#include "simt/dispatch.h"
#include "simt/warp.cuh"

namespace attnext::cuda::simt {
namespace {

// A row of merge's output, counted over (batch, head, query), in a tensor of three or more axes.
PTX_FN char* merged_row(const TensorView& t, const int64_t (&shape)[4], int64_t row) {
  const int64_t query = row % shape[2], head = row / shape[2] % shape[1],
                batch = row / shape[2] / shape[1];
  return element_pointer(t, batch * t.strides[0] + head * t.strides[1] + query * t.strides[2]);
}

PTX_FN double part_lse(const MergeParams& m, int64_t part, int64_t row) {
  const TensorView& t = m.lses[part];
  return read_element<double>(merged_row(t, m.out.shape, row), dtype_of(t));
}

// Of the parts that have keys. A part without, lse -inf, does not count, whatever its out holds;
// all others do, so that NaN reaches the result.
PTX_FN double merged_lse(const MergeParams& m, int64_t row) {
  const double none = negative_infinity<double>();
  double largest = none, sum = 0;
  for (int64_t i = 0; i < m.count; ++i) {
    const double lse = part_lse(m, i, row);
    if (lse > largest) largest = lse;
    if (lse != lse) largest = lse;
  }
  if (largest == none) return none;
  for (int64_t i = 0; i < m.count; ++i) {
    const double lse = part_lse(m, i, row);
    if (lse != none) sum += exp(lse - largest);
  }
  return largest + log(sum);
}

PTX_FN void merge_row(const MergeParams& m, int64_t row) {
  const double lse = merged_lse(m, row), none = negative_infinity<double>();
  const int64_t lane = ptx::lane_index();
  if (lane == 0 && is_present(m.lse))
    write_element<double>(merged_row(m.lse, m.out.shape, row), dtype_of(m.lse), lse);
  char* out = merged_row(m.out, m.out.shape, row);
  const int64_t bytes = m.out.strides[3] * size_of(dtype_of(m.out));
  for (int64_t d = lane; d < m.out.shape[3]; d += 32) {
    double sum = 0;
    for (int64_t i = 0; i < m.count; ++i) {
      const double part = part_lse(m, i, row);
      if (part == none) continue;
      sum +=
          exp(part - lse) * read_at<double>(merged_row(m.outs[i], m.out.shape, row), m.outs[i], d);
    }
    write_element<double>(out + d * bytes, dtype_of(m.out), sum);
  }
}

__global__ void __launch_bounds__(kThreads, 1)
    merge_kernel(const __grid_constant__ MergeParams params) {
  const int64_t* shape = params.out.shape;
  for_warps(shape[0] * shape[1] * shape[2], [&](int64_t row) { merge_row(params, row); });
}

__global__ void __launch_bounds__(kThreads, 1)
    dropout_mask_kernel(const __grid_constant__ KeepMaskParams m) {
  const int64_t seqlen_q = m.shape[2], seqlen_k = m.shape[3];
  const int64_t blocks = divide_up(seqlen_k, kQuad), rows = m.shape[0] * m.shape[1] * seqlen_q;
  const uint64_t threshold = drop_threshold(m.probability);
  for_threads(rows * blocks, [&](int64_t i) {
    const int64_t row = i / blocks, key = i % blocks * kQuad;
    uint32_t words[kQuad];
    dropout_words(m.seed, m.stream, row / seqlen_q, row % seqlen_q, key / kQuad, words);
#pragma unroll
    for (int j = 0; j < kQuad; ++j)
      if (key + j < seqlen_k) m.keep[row * seqlen_k + key + j] = words[j] >= threshold;
  });
}

// One element of the result: the parts that share it, in index order.
PTX_FN void sum_parts(const HeadSumParams& s, int64_t index) {
  const int64_t column = index % s.extents[2], head = index / s.extents[2] % s.extents[1],
                batch = index / s.extents[2] / s.extents[1];
  double sum = 0;
  for (int64_t b = batch; b < s.batch; b += s.extents[0])
    for (int64_t h = head; h < s.num_heads; h += s.extents[1])
      sum += s.parts[(b * s.num_heads + h) * s.columns + column];
  write_element<double>(element_pointer(s.gradient, batch * s.strides[0] + head * s.strides[1] +
                                                        column * s.strides[2]),
                        dtype_of(s.gradient), sum);
}

__global__ void __launch_bounds__(kThreads, 1)
    sum_heads_kernel(const __grid_constant__ HeadSumParams s) {
  for_threads(s.extents[0] * s.extents[1] * s.extents[2],
              [&](int64_t index) { sum_parts(s, index); });
}

__global__ void __launch_bounds__(kThreads, 1)
    deliver_kernel(const __grid_constant__ Parcel parcel) {
  for_threads(parcel.num_chunks,
              [&](int64_t i) { ptx::st_global(parcel.target + i, parcel.chunks[i]); });
}

}  // namespace

Status merge(const MergeParams& params, Launch& launch) {
  const int64_t* shape = params.out.shape;
  return start(launch, "merge_kernel", merge_kernel,
               divide_up(shape[0] * shape[1] * shape[2], kWarps), 0, params);
}

Status dropout_mask(const KeepMaskParams& params, Launch& launch) {
  const int64_t* shape = params.shape;
  const int64_t draws = shape[0] * shape[1] * shape[2] * divide_up(shape[3], kQuad);
  return start(launch, "dropout_mask_kernel", dropout_mask_kernel, divide_up(draws, kThreads), 0,
               params);
}

Status sum_heads(const HeadSumParams& params, Launch& launch) {
  const int64_t* extents = params.extents;
  return start(launch, "sum_heads_kernel", sum_heads_kernel,
               divide_up(extents[0] * extents[1] * extents[2], kThreads), 0, params);
}

Status deliver(const Parcel& parcel, Launch& launch) {
  static_assert(Parcel::kChunks <= kThreads);
  return start(launch, "deliver_kernel", deliver_kernel, 1, 0, parcel);
}

int describe_forward(const ForwardParams& params, const Device&, char* text, size_t capacity) {
  const Problem& p = params.problem;
  const int64_t rows = p.seqlen_q * p.group_size;
  const bool is_double = kDTypes[p.q.dtype].accumulator == DType::kFloat64;
  const bool has_small_tile = !is_double && p.score <= Score::kCosine;
  const int64_t tile =
      has_small_tile && rows <= kTileRows<kFewRows> ? kTileRows<kFewRows> : kTileRows<kManyRows>;
  const bool is_split = rows <= kTileRows<kManyRows> && p.seqlen_k > kSplitKeys;
  return snprintf(text, capacity,
                  "\"kernel\": \"simt\", \"tile_q\": %lld, \"tile_k\": %d, \"split_keys\": %lld",
                  static_cast<long long>(tile), kTileK,
                  static_cast<long long>(is_split ? kSplitKeys : 0));
}

}  // namespace attnext::cuda::simt
