// One call from its arguments to its results: tensors and small arrays brought to the device,
// results brought back, everything released whatever happens.
#include "host/session.h"

#include <cstring>

#include "host/failure.h"
#include "host/packing.h"
#include "host/parcels.h"

namespace attnext::cuda {
namespace {

constexpr int64_t kArrayAlignment = 16;

cudaStream_t stream_of(const DeviceCall& call, const Lane* lane) {
  return lane != nullptr ? lane->stream() : static_cast<cudaStream_t>(call.stream);
}

std::optional<SetupInCapture> setup_of(const DeviceCall& call) {
  if (!call.is_host_memory) return std::nullopt;
  return std::optional<SetupInCapture>(std::in_place);
}

}  // namespace

Session::Session(const DeviceCall& call)
    : guard_(call.device),
      setup_(setup_of(call)),
      device_(usable_device(call.device)),
      lane_(call.is_host_memory ? Lane::acquire(device_) : nullptr),
      launch_(stream_of(call, lane_.get()), device_, &host_problem_) {
  if (device_.pool != nullptr) return;
  refuse_capture(launch_.stream, "this device has no memory pool that workspace could come from");
}

void Session::bring(TensorView& input) {
  if (lane_ == nullptr || !is_present(input)) return;
  const TensorView host = input;
  input = packed_view(host);
  const int64_t bytes = packed_count(host) * kDTypes[host.dtype].size;
  input.data = launch_.take<char>(bytes);
  require_ok(launch_.status());
  if (bytes > 0) lane_->send(host, input.data);
}

void Session::bring_output(TensorView& output) {
  if (lane_ == nullptr || !is_present(output)) return;
  const TensorView host = output;
  output = packed_view(host);
  const int64_t bytes = packed_count(host) * kDTypes[host.dtype].size;
  output.data = launch_.take<char>(bytes);
  require_ok(launch_.status());
  if (bytes > 0) outputs_.push_back({output.data, host});
}

void Session::bring_problem(Problem& p) {
  bring(p.q);
  bring(p.k);
  bring(p.v);
  bring(p.mask);
  bring(p.bias);
  host_problem_ = p;
  add_table(p.block_table);
  bring_array(p.sequences, p.batch);
  bring_array(p.scale, p.num_heads_q);
  bring_array(p.alibi_slopes, p.batch * p.num_heads_q);
  bring_array(p.sinks, p.num_heads_q);
  bring_array(p.weight, p.num_heads_q * p.head_dim);
  bring_array(p.score_bias, p.num_heads_q * p.head_dim);
}

// Like the other small options it comes from host memory, but strided.
void Session::add_table(TensorView& table) {
  if (!is_present(table)) return;
  const int64_t count = packed_count(table);
  const TensorView host = table;
  table = packed_view(host);
  tables_.emplace_back(static_cast<size_t>(count * kDTypes[host.dtype].size));
  gather(host, 0, count, tables_.back().data());
  add_array(const_cast<const void**>(&table.data), tables_.back().data(),
            static_cast<int64_t>(tables_.back().size()));
}

void Session::add_array(const void** address, const void* data, int64_t bytes) {
  if (data == nullptr || bytes == 0) {
    *address = nullptr;
    return;
  }
  const Array* const last = arrays_.empty() ? nullptr : &arrays_.back();
  const int64_t offset = last ? round_up(last->offset + last->bytes, kArrayAlignment) : 0;
  arrays_.push_back({address, data, bytes, offset});
}

void Session::send() {
  if (arrays_.empty()) return;
  const int64_t bytes = round_up(arrays_.back().offset + arrays_.back().bytes, kArrayAlignment);
  std::vector<char> packed(static_cast<size_t>(bytes));
  for (const Array& array : arrays_) {
    std::memcpy(packed.data() + array.offset, array.data, static_cast<size_t>(array.bytes));
  }
  char* const memory = launch_.take<char>(bytes);
  require_ok(launch_.status());
  send_small(packed.data(), bytes, memory, launch_);
  for (const Array& array : arrays_) *array.address = memory + array.offset;
  arrays_.clear();
}

double* Session::take_zeros(int64_t count) {
  double* const zeros = launch_.take<double>(count);
  require_ok(launch_.status());
  if (zeros == nullptr) return nullptr;
  const size_t bytes = static_cast<size_t>(count) * sizeof(double);
  require_ok(cudaMemsetAsync(zeros, 0, bytes, launch_.stream), "cudaMemsetAsync");
  return zeros;
}

void Session::fill_zero(const TensorView& t) {
  const int64_t size = kDTypes[t.dtype].size, count = packed_count(t);
  if (count == 0) return;
  int num_outer = t.ndim;  // axes before those that lie together
  int64_t run = 1;
  while (num_outer > 0 && t.strides[num_outer - 1] == run) run *= t.shape[--num_outer];
  for (int64_t outer = 0; outer < count / run; ++outer) {
    int64_t offset = 0, index = outer;
    for (int axis = num_outer - 1; axis >= 0; --axis) {
      offset += index % t.shape[axis] * t.strides[axis];
      index /= t.shape[axis];
    }
    char* const place = static_cast<char*>(t.data) + offset * size;
    require_ok(cudaMemsetAsync(place, 0, static_cast<size_t>(run * size), launch_.stream),
               "cudaMemsetAsync");
  }
}

void Session::finish() {
  for (const Output& output : outputs_) lane_->receive(output.memory, output.target);
  if (lane_ == nullptr) return;
  require_ok(cudaStreamSynchronize(launch_.stream), "cudaStreamSynchronize");
}

}  // namespace attnext::cuda
