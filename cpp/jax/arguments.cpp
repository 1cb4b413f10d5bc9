// What XLA hands over, buffers known by name and attributes, as arguments of the C interface.
#include "jax/arguments.h"

#include <algorithm>
#include <utility>

namespace attnext::jax {
namespace {

#define ATTNEXT_SLOT(name, batching, has_layout, field)                                           \
  Slot {                                                                                          \
    name, Batching::batching, has_layout, [](Arguments& a) -> attnext_tensor& { return a.field; } \
  }

const Slot kSlots[] = {
    ATTNEXT_SLOT("q", kBatchFirst, true, q),
    ATTNEXT_SLOT("k", kBatchFirst, true, k),
    ATTNEXT_SLOT("v", kBatchFirst, true, v),
    ATTNEXT_SLOT("out", kBatchFirst, true, out),
    ATTNEXT_SLOT("dout", kBatchFirst, true, dout),
    ATTNEXT_SLOT("dq", kBatchFirst, true, gradients.dq),
    ATTNEXT_SLOT("dk", kBatchFirst, true, gradients.dk),
    ATTNEXT_SLOT("dv", kBatchFirst, true, gradients.dv),
    ATTNEXT_SLOT("lse", kBatchFirst, false, lse),
    ATTNEXT_SLOT("dlse", kBatchFirst, false, dlse),
    ATTNEXT_SLOT("p", kBatchFirst, false, p),
    ATTNEXT_SLOT("row_max", kBatchFirst, false, row_max),
    ATTNEXT_SLOT("entropy", kBatchFirst, false, entropy),
    ATTNEXT_SLOT("key_mass", kBatchFirst, false, key_mass),
    ATTNEXT_SLOT("mask", kPairs, false, options.mask),
    ATTNEXT_SLOT("bias", kPairs, false, options.bias),
    ATTNEXT_SLOT("dbias", kPairs, false, gradients.dbias),
    ATTNEXT_SLOT("q_offset", kPerBatch, false, options.q_offset),
    ATTNEXT_SLOT("q_lengths", kPerBatch, false, options.q_lengths),
    ATTNEXT_SLOT("kv_lengths", kPerBatch, false, options.kv_lengths),
    ATTNEXT_SLOT("alibi_slopes", kPerHead, false, options.alibi_slopes),
    ATTNEXT_SLOT("dalibi_slopes", kPerHead, false, gradients.dalibi_slopes),
    ATTNEXT_SLOT("scale", kNeverBatched, false, options.scale_per_head),
    ATTNEXT_SLOT("dscale", kNeverBatched, false, gradients.dscale),
    ATTNEXT_SLOT("sinks", kNeverBatched, false, options.sinks),
    ATTNEXT_SLOT("dsinks", kNeverBatched, false, gradients.dsinks),
    ATTNEXT_SLOT("weight", kNeverBatched, false, options.weight),
    ATTNEXT_SLOT("dweight", kNeverBatched, false, gradients.dweight),
    ATTNEXT_SLOT("score_bias", kNeverBatched, false, options.score_bias),
    ATTNEXT_SLOT("dscore_bias", kNeverBatched, false, gradients.dscore_bias),
    ATTNEXT_SLOT("cu_seqlens_q", kNeverBatched, false, options.cu_seqlens_q),
    ATTNEXT_SLOT("cu_seqlens_k", kNeverBatched, false, options.cu_seqlens_k),
    ATTNEXT_SLOT("block_table", kNeverBatched, false, options.block_table),
    ATTNEXT_SLOT("rows", kNeverBatched, false, rows),
    ATTNEXT_SLOT("seed", kNeverBatched, false, seed),
};
#undef ATTNEXT_SLOT

constexpr std::pair<ffi::DataType, attnext_dtype> kDTypes[] = {
    {ffi::F64, ATTNEXT_FLOAT64},   {ffi::F32, ATTNEXT_FLOAT32}, {ffi::F16, ATTNEXT_FLOAT16},
    {ffi::BF16, ATTNEXT_BFLOAT16}, {ffi::PRED, ATTNEXT_BOOL},   {ffi::S32, ATTNEXT_INT32},
    {ffi::S64, ATTNEXT_INT64},
};

ffi::Error invalid(std::string message) {
  return ffi::Error::InvalidArgument("attention: " + std::move(message));
}

// The buffer behind `slot`, dense and row-major, its first `num_vmapped` axes apart.
ffi::Error read_buffer(const ffi::AnyBuffer& buffer, const Slot& slot, size_t num_vmapped,
                       bool is_result, Call& call) {
  const auto dims = buffer.dimensions();
  const auto* dtype = std::find_if(std::begin(kDTypes), std::end(kDTypes), [&](const auto& pair) {
    return pair.first == buffer.element_type();
  });
  if (dtype == std::end(kDTypes) || dims.size() < num_vmapped || dims.size() > num_vmapped + 4)
    return invalid(std::string(slot.name) + " has a dtype or a number of axes that is not known");
  attnext_tensor& tensor = slot.of(call.arguments);
  tensor.data = buffer.untyped_data();
  tensor.dtype = dtype->second;
  tensor.ndim = static_cast<int32_t>(dims.size() - num_vmapped);
  Operand operand{&slot, &tensor, is_result, {dims.begin(), dims.begin() + num_vmapped}, {}};
  operand.strides.resize(num_vmapped);
  int64_t stride = 1;
  for (size_t axis = dims.size(); axis-- > 0; stride *= dims[axis]) {
    if (axis < num_vmapped) {
      operand.strides[axis] = dims[axis] == 1 ? 0 : stride;
    } else {
      tensor.shape[axis - num_vmapped] = dims[axis];
      tensor.strides[axis - num_vmapped] = stride;
    }
  }
  call.operands.push_back(std::move(operand));
  return ffi::Error::Success();
}

// Takes the first of the names that `names` holds, separated by spaces.
std::string_view next_name(std::string_view& names) {
  const size_t end = std::min(names.find(' '), names.size());
  const std::string_view name = names.substr(0, end);
  names.remove_prefix(std::min(end + 1, names.size()));
  return name;
}

// `buffer_at(i)` is the buffer with the i-th of the names; `num_vmapped` is known after q.
template <class BufferAt>
ffi::Error read_buffers(std::string_view names, size_t count, BufferAt buffer_at, bool is_result,
                        size_t& num_vmapped, Call& call) {
  for (size_t i = 0; i < count; ++i) {
    const std::string_view name = next_name(names);
    const auto* slot = std::find_if(std::begin(kSlots), std::end(kSlots),
                                    [&](const Slot& known) { return name == known.name; });
    if (slot == std::end(kSlots)) return invalid("unknown buffer " + std::string(name));
    const ffi::AnyBuffer buffer = buffer_at(i);
    if (name == "q") num_vmapped = std::max<size_t>(buffer.dimensions().size(), 4) - 4;
    if (ffi::Error error = read_buffer(buffer, *slot, num_vmapped, is_result, call);
        error.failure())
      return error;
  }
  return ffi::Error::Success();
}

template <class T>
void read_attribute(const ffi::Dictionary& attributes, const char* name, T& value) {
  if (!attributes.contains<T>(name)) return;
  if (const auto found = attributes.get<T>(name)) value = *found;
}

void read_options(const ffi::Dictionary& attributes, Arguments& arguments) {
  attnext_options& options = arguments.options;
  read_attribute(attributes, "score", options.score);
  read_attribute(attributes, "causal", options.causal);
  read_attribute(attributes, "scale", options.scale);
  read_attribute(attributes, "softcap", options.softcap);
  read_attribute(attributes, "window_left", options.window_left);
  read_attribute(attributes, "window_right", options.window_right);
  read_attribute(attributes, "dropout", options.dropout);
  if (attributes.contains<int64_t>("q_offset")) {
    read_attribute(attributes, "q_offset", arguments.q_offset);
    options.q_offset.data = &arguments.q_offset;
    options.q_offset.dtype = ATTNEXT_INT64;
  }
  int32_t stream = 0;
  read_attribute(attributes, "dropout_stream", stream);
  options.dropout_stream = static_cast<uint32_t>(stream);
}

// From (batch, seqlen, heads, dim) to the axes of the C interface. Pages are always so.
void swap_middle_axes(attnext_tensor& tensor) {
  std::swap(tensor.shape[1], tensor.shape[2]);
  std::swap(tensor.strides[1], tensor.strides[2]);
}

void apply_layout(bool has_heads_first, Call& call) {
  const bool is_paged = call.arguments.options.block_table.dtype != ATTNEXT_ABSENT;
  for (const Operand& operand : call.operands) {
    if (!operand.slot->has_layout) continue;
    const std::string_view name = operand.slot->name;
    const bool is_page = is_paged && (name == "k" || name == "v");
    if (is_page || !has_heads_first) swap_middle_axes(*operand.tensor);
  }
}

}  // namespace

int64_t item_size(int32_t dtype) {
  switch (dtype) {
    case ATTNEXT_FLOAT64:
    case ATTNEXT_INT64:
      return 8;
    case ATTNEXT_FLOAT32:
    case ATTNEXT_INT32:
      return 4;
    case ATTNEXT_BOOL:
      return 1;
    default:
      return 2;
  }
}

ffi::Error read_call(ffi::RemainingArgs inputs, ffi::RemainingRets results,
                     ffi::Dictionary attributes, Call& call) {
  call.arguments = {};
  attnext_options_init(&call.arguments.options);
  attnext_gradients_init(&call.arguments.gradients);
  read_options(attributes, call.arguments);
  std::string_view input_names, result_names, layout;
  read_attribute(attributes, "inputs", input_names);
  read_attribute(attributes, "results", result_names);
  read_attribute(attributes, "layout", layout);
  size_t num_vmapped = 0;
  const auto input_at = [&](size_t i) { return *inputs.get<ffi::AnyBuffer>(i); };
  if (ffi::Error error =
          read_buffers(input_names, inputs.size(), input_at, false, num_vmapped, call);
      error.failure())
    return error;
  const auto result_at = [&](size_t i) { return **results.get<ffi::AnyBuffer>(i); };
  if (ffi::Error error =
          read_buffers(result_names, results.size(), result_at, true, num_vmapped, call);
      error.failure())
    return error;
  apply_layout(layout == "bhsd", call);
  return ffi::Error::Success();
}

}  // namespace attnext::jax
