// Is a bias gradient the same whether it goes past the caches (aligned) or through them (not)?
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "attnext/attnext.h"

namespace {

// More than 4 MiB of dbias; rows of whole cache lines, a last panel of few rows, an end of keys
// that is not whole vectors.
constexpr int64_t kHeads = 2, kSeqlenQ = 514, kSeqlenK = 1048, kRow = 1056, kHeadDim = 8;
constexpr int64_t kLine = 64 / sizeof(float);

attnext_tensor tensor(float* data, int64_t rows, int64_t columns, int64_t stride) {
  attnext_tensor t{};
  t.data = data;
  t.dtype = ATTNEXT_FLOAT32;
  t.ndim = 4;
  const int64_t shape[] = {1, kHeads, rows, columns},
                strides[] = {kHeads * rows * stride, rows * stride, stride, 1};
  std::memcpy(t.shape, shape, sizeof(shape));
  std::memcpy(t.strides, strides, sizeof(strides));
  return t;
}

// Numbers in [-1, 1), `offset` floats behind the begin of a cache line.
struct Numbers {
  std::vector<float> memory;
  float* data;
  Numbers(int64_t count, int64_t offset, uint32_t seed)
      : memory(static_cast<size_t>(count + 2 * kLine)) {
    const auto address = reinterpret_cast<uintptr_t>(memory.data()) / sizeof(float);
    data = memory.data() + (kLine - static_cast<int64_t>(address) % kLine) + offset;
    for (int64_t i = 0; i < count; ++i) {
      seed = seed * 1664525 + 1013904223;
      data[i] = static_cast<float>(seed >> 8) / 8388608.0F - 1.0F;
    }
  }
};

// dbias with its padding, which must stay as it was.
std::vector<float> bias_gradient(int64_t offset, bool is_causal) {
  Numbers q(kHeads * kSeqlenQ * kHeadDim, 0, 1), k(kHeads * kSeqlenK * kHeadDim, 0, 2),
      v(kHeads * kSeqlenK * kHeadDim, 0, 3), out(kHeads * kSeqlenQ * kHeadDim, 0, 4),
      dout(kHeads * kSeqlenQ * kHeadDim, 0, 5), bias(kHeads * kSeqlenQ * kRow, 0, 6),
      dbias(kHeads * kSeqlenQ * kRow, offset, 7);
  std::vector<float> lse(kHeads * kSeqlenQ);
  attnext_tensor lse_tensor{};
  lse_tensor.data = lse.data();
  lse_tensor.dtype = ATTNEXT_FLOAT32;
  lse_tensor.ndim = 3;
  const int64_t shape[] = {1, kHeads, kSeqlenQ}, strides[] = {kHeads * kSeqlenQ, kSeqlenQ, 1};
  std::memcpy(lse_tensor.shape, shape, sizeof(shape));
  std::memcpy(lse_tensor.strides, strides, sizeof(strides));

  const auto rows = [](float* data, int64_t count) {
    return tensor(data, count, kHeadDim, kHeadDim);
  };
  const attnext_tensor q_rows = rows(q.data, kSeqlenQ), k_rows = rows(k.data, kSeqlenK),
                       v_rows = rows(v.data, kSeqlenK), dout_rows = rows(dout.data, kSeqlenQ);
  attnext_tensor out_rows = rows(out.data, kSeqlenQ);
  attnext_options options;
  attnext_options_init(&options);
  options.bias = tensor(bias.data, kSeqlenQ, kSeqlenK, kRow);
  if (is_causal) options.causal = ATTNEXT_BOTTOM_RIGHT;
  attnext_gradients gradients;
  attnext_gradients_init(&gradients);
  gradients.dbias = tensor(dbias.data, kSeqlenQ, kSeqlenK, kRow);
  if (attnext_forward(&q_rows, &k_rows, &v_rows, &options, &out_rows, &lse_tensor) != ATTNEXT_OK ||
      attnext_backward(&dout_rows, &q_rows, &k_rows, &v_rows, &out_rows, &lse_tensor, nullptr,
                       &options, &gradients) != ATTNEXT_OK)
    return {};
  return {dbias.data, dbias.data + kHeads * kSeqlenQ * kRow};
}

}  // namespace

int main() {
  int failures = 0;
  for (const bool is_causal : {false, true}) {
    const std::vector<float> streamed = bias_gradient(0, is_causal),
                             stored = bias_gradient(1, is_causal);
    const bool is_same = !streamed.empty() && streamed.size() == stored.size() &&
                         std::memcmp(streamed.data(), stored.data(), stored.size() * 4) == 0;
    if (is_same) continue;
    std::printf("FAILED: %s\n", is_causal ? "causal" : "full");
    ++failures;
  }
  return failures;
}
