// How bfloat16 rows become pairs: along head_dim in place (or copied, where memory is not what the
// products read), or along rows, two of them interleaved, where the sum goes over rows.
#pragma once

#include "cpu/tile/load.h"
#include "cpu/tile/panel.h"

namespace attnext::cpu {
namespace ATTNEXT_ISA_NAMESPACE {

// Cosine stays with float32: rounding normalised rows would be an error of its own.
ATTNEXT_HD bool is_paired(const Problem& p) {
  return kHasPairs && dtype_of(p.q) == DType::kBFloat16 && p.score == Score::kDot;
}

// Pairs a row of `elements` takes, in whole vectors.
ATTNEXT_HD int64_t paired_width(int64_t elements) {
  return round_up(divide_up(elements, 2), kLanes<Pair>);
}

// A row's elements as they are, zeros up to `width` pairs.
[[maybe_unused]] static void copy_row_pairs(const char* row, int64_t stride, int64_t elements,
                                            int64_t width, Pair* out) {
  uint16_t* to = reinterpret_cast<uint16_t*>(out);
  if (stride == 1) {
    std::memcpy(to, row, static_cast<size_t>(2 * elements));
  } else {
    for (int64_t i = 0; i < elements; ++i) std::memcpy(to + i, row + 2 * i * stride, 2);
  }
  std::memset(to + elements, 0, static_cast<size_t>(2 * (2 * width - elements)));
}

// Rows `keys` of `t` (k or v), pairs along the row. `buffer` holds as many rows of paired_width.
[[maybe_unused]] static RowBlock<Pair> load_row_pairs(const Group& g, const TensorView& t,
                                                      int64_t elements, Span keys, Pair* buffer) {
  if (t.strides[3] == 1 && elements % 2 == 0 && t.strides[2] % 2 == 0 && g.problem->page_size == 0)
    return {reinterpret_cast<const Pair*>(key_pointer(g, t, keys.begin)), t.strides[2] / 2};
  const int64_t width = paired_width(elements);
  for (int64_t key = keys.begin; key < keys.end; ++key)
    copy_row_pairs(key_pointer(g, t, key), t.strides[3], elements, width,
                   buffer + (key - keys.begin) * width);
  return {buffer, width};
}

// out[i][d] = (row 2i, row 2i + 1)[d], the last row paired with zeros; rows of out are `width`
// apart, whole vectors. `row(i)`: where row i begins.
template <class F>
static void interleave_rows(int64_t num_rows, int64_t stride, int64_t elements, int64_t width,
                            Pair* out, F&& row) {
  for (int64_t i = 0; i < num_rows; i += 2) {
    const bool has_second = i + 1 < num_rows;
    const char *first = row(i), *second = has_second ? row(i + 1) : first;
    int64_t d = 0;
    for (; stride == 1 && has_second && d + 2 * kLanes<Pair> <= elements; d += 2 * kLanes<Pair>)
      interleave(first + 2 * d, second + 2 * d, out + i / 2 * width + d);
    for (; d < width; d += kLanes<Pair>) {
      const int64_t count = clamp_to(elements - d, 0, kLanes<Pair>);
      const Vec<float> low = load_elements<float>(first, DType::kBFloat16, stride, d, count);
      const Vec<float> high = load_elements<float>(second, DType::kBFloat16, stride, d, count);
      // A bfloat16 widened to float32 is its own upper half.
      const Vec<Pair> low_bits = reinterpret_cast<Vec<Pair>>(low),
                      high_bits = reinterpret_cast<Vec<Pair>>(high);
      const Vec<Pair> upper = has_second ? high_bits : Vec<Pair>{};
      store<Pair>(out + i / 2 * width + d, upper | ((low_bits >> 16) & 0xffff));
    }
  }
}

// Rows `keys` of `t`, pairs along keys: [divide_up(keys, 2)][paired columns].
[[maybe_unused]] static RowBlock<Pair> load_interleaved_rows(const Group& g, const TensorView& t,
                                                             int64_t elements, Span keys,
                                                             Pair* buffer) {
  const int64_t width = round_up(elements, kLanes<Pair>);
  interleave_rows(keys.end - keys.begin, t.strides[3], elements, width, buffer,
                  [&](int64_t i) { return key_pointer(g, t, keys.begin + i); });
  return {buffer, width};
}

// out[d / 2][lane]: the panel's rows of `t` (q or dout), pairs along the row. `rows` has room for
// kPanelLanes rows of paired_width.
[[maybe_unused]] static void load_transposed_pairs(const Group& g, const Panel<float>& panel,
                                                   const TensorView& t, int64_t elements,
                                                   Pair* rows, Pair* out) {
  const int64_t width = paired_width(elements);
  LaneRows<float> lanes{};
  lanes.dtype = DType::kFloat32;  // as far as moving its bits goes
  lanes.stride = 1;
  for (int lane = 0; lane < lanes_of(panel); ++lane) {
    const char* row = row_pointer(g, t, min_of(panel.rows.begin + lane, panel.rows.end - 1));
    lanes.row[lane] = row;
    if (t.strides[3] == 1 && elements % 2 == 0 &&
        reinterpret_cast<uintptr_t>(row) % alignof(Pair) == 0)
      continue;
    Pair* copy = rows + lane * width;
    copy_row_pairs(row, t.strides[3], elements, width, copy);
    lanes.row[lane] = reinterpret_cast<const char*>(copy);
  }
  load_transposed<float>(lanes, panel.vectors, 0, divide_up(elements, 2),
                         reinterpret_cast<float*>(out));
}

}  // namespace ATTNEXT_ISA_NAMESPACE
}  // namespace attnext::cpu
