// Are the sums that work items pass on to each other the same bits for any number of threads?
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "attnext/attnext.h"
#include "check.h"

namespace {

// Several chunks of keys for each head, and several blocks of queries for them to wait at.
constexpr int64_t kBatch = 2, kHeadsQ = 4, kHeadsKv = 2, kSeqlenQ = 600, kSeqlenK = 1700,
                  kHeadDim = 16;

using ::check;
void check(attnext_status status) { check(status == ATTNEXT_OK, attnext_last_error()); }

// A row-major tensor of four axes, or of three where the last is 0.
struct Array {
  attnext_tensor tensor{};
  std::vector<uint8_t> memory;

  Array(attnext_dtype dtype, int64_t a, int64_t b, int64_t c, int64_t d) {
    const int64_t shape[4] = {a, b, c, d};
    tensor.dtype = dtype;
    tensor.ndim = d == 0 ? 3 : 4;
    int64_t count = 1;
    for (int axis = tensor.ndim - 1; axis >= 0; --axis) {
      tensor.shape[axis] = shape[axis];
      tensor.strides[axis] = count;
      count *= shape[axis];
    }
    // What a pass leaves unwritten differs from one array to the next.
    static uint8_t filling = 0;
    memory.assign(static_cast<size_t>(count * (dtype == ATTNEXT_FLOAT32 ? 4 : 2)), ++filling);
    tensor.data = memory.data();
  }
};

// Numbers in [-1, 1), the same for the same seed.
Array numbers(attnext_dtype dtype, uint32_t seed, int64_t a, int64_t b, int64_t c, int64_t d) {
  Array array(dtype, a, b, c, d);
  const size_t size = dtype == ATTNEXT_FLOAT32 ? 4 : 2;
  for (size_t at = 0; at < array.memory.size(); at += size) {
    seed = seed * 1664525 + 1013904223;
    const float value = static_cast<float>(seed >> 8) / 8388608.0F - 1.0F;
    uint8_t bytes[4];
    std::memcpy(bytes, &value, 4);
    std::memcpy(&array.memory[at], bytes + 4 - size, size);  // bfloat16 is the upper half
  }
  return array;
}

struct Call {
  attnext_dtype dtype;
  attnext_causal causal;
  int64_t bias_batch, bias_heads;
};

// Every byte that a forward and a backward pass write.
std::vector<uint8_t> results(const Call& call, int num_threads) {
  attnext_set_num_threads(num_threads);
  const attnext_dtype dtype = call.dtype;
  const Array q = numbers(dtype, 1, kBatch, kHeadsQ, kSeqlenQ, kHeadDim),
              k = numbers(dtype, 2, kBatch, kHeadsKv, kSeqlenK, kHeadDim),
              v = numbers(dtype, 3, kBatch, kHeadsKv, kSeqlenK, kHeadDim),
              dout = numbers(dtype, 4, kBatch, kHeadsQ, kSeqlenQ, kHeadDim),
              bias = numbers(dtype, 5, call.bias_batch, call.bias_heads, kSeqlenQ, kSeqlenK);
  Array out(dtype, kBatch, kHeadsQ, kSeqlenQ, kHeadDim),
      lse(ATTNEXT_FLOAT32, kBatch, kHeadsQ, kSeqlenQ, 0),
      dq(dtype, kBatch, kHeadsQ, kSeqlenQ, kHeadDim),
      dk(dtype, kBatch, kHeadsKv, kSeqlenK, kHeadDim),
      dv(dtype, kBatch, kHeadsKv, kSeqlenK, kHeadDim),
      dbias(dtype, call.bias_batch, call.bias_heads, kSeqlenQ, kSeqlenK);
  attnext_options options;
  attnext_options_init(&options);
  options.causal = call.causal;
  options.bias = bias.tensor;
  check(attnext_forward(&q.tensor, &k.tensor, &v.tensor, &options, &out.tensor, &lse.tensor));
  attnext_gradients gradients;
  attnext_gradients_init(&gradients);
  gradients.dq = dq.tensor;
  gradients.dk = dk.tensor;
  gradients.dv = dv.tensor;
  gradients.dbias = dbias.tensor;
  check(attnext_backward(&dout.tensor, &q.tensor, &k.tensor, &v.tensor, &out.tensor, &lse.tensor,
                         nullptr, &options, &gradients));
  std::vector<uint8_t> bytes;
  for (const Array* array : {&out, &lse, &dq, &dk, &dv, &dbias})
    bytes.insert(bytes.end(), array->memory.begin(), array->memory.end());
  return bytes;
}

}  // namespace

int main() {
  for (const attnext_dtype dtype : {ATTNEXT_FLOAT32, ATTNEXT_BFLOAT16}) {
    for (const attnext_causal causal : {ATTNEXT_NOT_CAUSAL, ATTNEXT_BOTTOM_RIGHT}) {
      for (const int64_t bias_heads : {int64_t{1}, kHeadsQ}) {
        const Call call{dtype, causal, 1, bias_heads};
        check(results(call, 4) == results(call, 1), "4 threads give the bits of 1");
      }
    }
  }
  return verdict();
}
