// How a vmapped call runs: as one batch where that means the same, example by example elsewhere.
#include "jax/vmap.h"

#include <algorithm>

namespace attnext::jax {
namespace {

// Lengths of the vmapped axes: each is that of the operands which are not shared along it.
std::vector<int64_t> vmapped_lengths(const Call& call) {
  std::vector<int64_t> lengths(call.operands.empty() ? 0 : call.operands[0].lengths.size(), 1);
  for (const Operand& operand : call.operands) {
    for (size_t axis = 0; axis < lengths.size(); ++axis)
      if (operand.lengths[axis] != 1) lengths[axis] = operand.lengths[axis];
  }
  return lengths;
}

// Two neighbours become one where every operand lies in memory as if they were one, or is shared
// along both.
void join_axes(Call& call, std::vector<int64_t>& lengths) {
  const auto erase = [&](size_t axis) {
    lengths.erase(lengths.begin() + axis);
    for (Operand& operand : call.operands) operand.strides.erase(operand.strides.begin() + axis);
  };
  for (size_t axis = lengths.size(); axis-- > 0;) {
    if (lengths[axis] == 1) {
      erase(axis);
      continue;
    }
    if (axis + 1 >= lengths.size()) continue;
    const bool is_one =
        std::all_of(call.operands.begin(), call.operands.end(), [&](const Operand& operand) {
          return operand.strides[axis] == lengths[axis + 1] * operand.strides[axis + 1];
        });
    if (!is_one) continue;
    const int64_t joined = lengths[axis] * lengths[axis + 1];
    erase(axis);
    lengths[axis] = joined;
  }
}

// Whether the last vmapped axis may become the batch. Dropout counts the batch: an example would
// get another mask than alone.
bool can_be_batch(const Call& call) {
  const attnext_options& options = call.arguments.options;
  if (call.arguments.q.shape[0] != 1 || options.dropout > 0 ||
      options.cu_seqlens_q.dtype != ATTNEXT_ABSENT || options.block_table.dtype != ATTNEXT_ABSENT)
    return false;
  return std::none_of(call.operands.begin(), call.operands.end(), [](const Operand& operand) {
    return operand.slot->batching == Batching::kNeverBatched &&
           (operand.is_result || operand.strides.back() != 0);
  });
}

// Axes of length 1 in front until there are `ndim`.
void add_leading_axes(attnext_tensor& tensor, int ndim) {
  for (; tensor.ndim < ndim; ++tensor.ndim) {
    std::copy_backward(tensor.shape, tensor.shape + tensor.ndim, tensor.shape + tensor.ndim + 1);
    std::copy_backward(tensor.strides, tensor.strides + tensor.ndim,
                       tensor.strides + tensor.ndim + 1);
    tensor.shape[0] = 1;
    tensor.strides[0] = 0;
  }
}

// The last vmapped axis as the batch of the problem, whose own batch is 1.
void make_batch(Call& call, std::vector<int64_t>& lengths) {
  for (Operand& operand : call.operands) {
    attnext_tensor& tensor = *operand.tensor;
    const int64_t stride = operand.strides.back();
    operand.strides.pop_back();
    switch (operand.slot->batching) {
      case Batching::kNeverBatched:
        continue;
      case Batching::kPairs:
        add_leading_axes(tensor, 4);
        break;
      case Batching::kPerBatch:
        add_leading_axes(tensor, 1);
        break;
      case Batching::kPerHead:
        add_leading_axes(tensor, 2);
        break;
      case Batching::kBatchFirst:
        break;
    }
    tensor.shape[0] = lengths.back();
    tensor.strides[0] = stride;
  }
  lengths.pop_back();
}

void read_seed(Arguments& arguments) {
  if (arguments.seed.dtype == ATTNEXT_ABSENT) return;
  const auto* words = static_cast<const uint32_t*>(arguments.seed.data);
  arguments.options.seed = uint64_t{words[0]} | uint64_t{words[1]} << 32;
}

// Moves on to the next example, the last axis fastest; false after the last one.
bool advance(Call& call, const std::vector<int64_t>& lengths, std::vector<int64_t>& index) {
  for (size_t axis = lengths.size(); axis-- > 0;) {
    const bool wraps = ++index[axis] == lengths[axis];
    const int64_t steps = wraps ? 1 - lengths[axis] : 1;
    for (const Operand& operand : call.operands) {
      const int64_t elements = steps * operand.strides[axis];
      auto* data = static_cast<char*>(operand.tensor->data);
      if (elements != 0) operand.tensor->data = data + elements * item_size(operand.tensor->dtype);
    }
    if (!wraps) return true;
    index[axis] = 0;
  }
  return false;
}

}  // namespace

attnext_status run_examples(Call& call, Pass pass) {
  std::vector<int64_t> lengths = vmapped_lengths(call);
  if (std::count(lengths.begin(), lengths.end(), 0)) return ATTNEXT_OK;
  join_axes(call, lengths);
  if (!lengths.empty() && can_be_batch(call)) make_batch(call, lengths);
  std::vector<int64_t> index(lengths.size(), 0);
  do {
    read_seed(call.arguments);
    if (const attnext_status status = pass(call.arguments); status != ATTNEXT_OK) return status;
  } while (advance(call, lengths, index));
  return ATTNEXT_OK;
}

}  // namespace attnext::jax
