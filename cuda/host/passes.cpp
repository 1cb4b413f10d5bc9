// What the plug-in does for each pass: a session, the kernels that fit, the results.
#include "host/passes.h"

#include "host/failure.h"
#include "host/session.h"

namespace attnext::cuda {

void run_forward(const DeviceCall& call, const ForwardParams& given) {
  Session session(call);
  ForwardParams params = given;
  session.bring_problem(params.problem);
  session.bring_output(params.out);
  session.bring_output(params.lse);
  session.send();
  Launch& launch = session.launch();
  const bool fits = mma::why_not_forward(params, call.allows_tf32, session.device()) == nullptr;
  require_ok(fits ? mma::forward(params, launch) : simt::forward(params, launch));
  session.finish();
}

void run_weights(const DeviceCall& call, const WeightsParams& given) {
  Session session(call);
  WeightsParams params = given;
  session.bring_problem(params.problem);
  session.bring_array(params.rows, params.num_rows);
  session.bring_array(params.places, params.num_rows);
  session.bring_array(params.begins, params.problem.batch + 1);
  session.bring_output(params.p);
  session.send();
  require_ok(simt::weights(params, session.launch()));
  session.finish();
}

void run_stats(const DeviceCall& call, const StatsParams& given) {
  Session session(call);
  StatsParams params = given;
  session.bring_problem(params.problem);
  session.bring_output(params.lse);
  session.bring_output(params.row_max);
  session.bring_output(params.entropy);
  session.bring_output(params.key_mass);
  session.send();
  require_ok(simt::stats(params, session.launch()));
  session.finish();
}

void run_merge(const DeviceCall& call, const MergeParams& given) {
  Session session(call);
  MergeParams params = given;
  std::vector<TensorView> outs(given.outs, given.outs + given.count);
  std::vector<TensorView> lses(given.lses, given.lses + given.count);
  for (TensorView& out : outs) session.bring(out);
  for (TensorView& lse : lses) session.bring(lse);
  params.outs = outs.data();
  params.lses = lses.data();
  session.bring_array(params.outs, params.count);
  session.bring_array(params.lses, params.count);
  session.bring_output(params.out);
  session.bring_output(params.lse);
  session.send();
  require_ok(simt::merge(params, session.launch()));
  session.finish();
}

void run_dropout_mask(const DeviceCall& call, const KeepMaskParams& given) {
  Session session(call);
  KeepMaskParams params = given;
  TensorView keep{given.keep, {}, {}, 4, ATTNEXT_BOOL};
  int64_t stride = 1;
  for (int axis = 3; axis >= 0; --axis) {
    keep.shape[axis] = given.shape[axis];
    keep.strides[axis] = stride;
    stride *= given.shape[axis];
  }
  session.bring_output(keep);
  params.keep = static_cast<uint8_t*>(keep.data);
  require_ok(simt::dropout_mask(params, session.launch()));
  session.finish();
}

std::string explain_forward(const DeviceCall& call, const Problem& problem) {
  const DeviceGuard guard(call.device);
  const Device& device = usable_device(call.device);
  const ForwardParams params{.problem = problem, .out = {}, .lse = {}};
  const char* const why_not = mma::why_not_forward(params, call.allows_tf32, device);
  char fields[1536] = "";
  if (why_not == nullptr) {
    mma::describe_forward(params, device, fields, sizeof(fields));
  } else {
    simt::describe_forward(params, device, fields, sizeof(fields));
  }
  std::string text = "\"device\": " + std::to_string(device.ordinal) +
                     ", \"compute_capability\": \"" + std::to_string(device.arch / 10) + "." +
                     std::to_string(device.arch % 10) + "\", \"path\": ";
  const bool is_split = dtype_of(problem.q) == DType::kFloat32;
  text += why_not != nullptr ? std::string("\"simt\", \"why\": \"") + why_not + "\""
          : is_split ? "\"mma\", \"why\": \"matrix instructions, set_float32_precision says fast\""
                     : "\"mma\", \"why\": \"16-bit matrix instructions\"";
  if (call.is_host_memory) text += ", \"memory\": \"staged through the device\"";
  return fields[0] == '\0' ? text : text + ", " + fields;
}

}  // namespace attnext::cuda
