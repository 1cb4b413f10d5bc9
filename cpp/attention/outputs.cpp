// What each pass may be asked to write, and what backward is given back, in which shape and dtype.
#include <algorithm>
#include <numeric>
#include <utility>

#include "attention/elements.h"
#include "attention/error.h"
#include "attention/tensor_rules.h"
#include "attention/validate.h"

namespace attnext {
namespace {

constexpr const char* kRowAxes = "(batch, num_heads_q, seqlen_q)";
constexpr const char* kOutAxes = "(batch, num_heads_q, seqlen_q, head_dim_v)";

void require_row_dtype(const char* name, const TensorView& t, const Problem& p) {
  if (!is_present(t)) return;
  const DType expected = kDTypes[p.q.dtype].accumulator;
  require(dtype_of(t) == expected, ErrorKind::kType, name, " must be ", expected, " for q of ",
          dtype_of(p.q), ", found ", dtype_of(t));
}

// Not rounded to q's dtype, out makes the gradients of a 16-bit call more exact.
void require_out_dtype(const TensorView& out, const Problem& p) {
  const DType dtype = dtype_of(p.q), accumulator = kDTypes[p.q.dtype].accumulator;
  if (dtype == accumulator) return require_dtype("out", out, dtype, "q's dtype");
  require(dtype_of(out) == dtype || dtype_of(out) == accumulator, ErrorKind::kType,
          "out must have q's dtype ", dtype, ", or ", accumulator, ", found ", dtype_of(out));
}

void require_row_shape(const char* name, const TensorView& t, const Problem& p) {
  if (!is_present(t)) return;
  require_shape(name, t, kRowAxes, {p.q.shape[0], p.num_heads_q, p.q.shape[2]});
}

void require_out_shape(const char* name, const TensorView& t, const Problem& p) {
  require_shape(name, t, kOutAxes, {p.q.shape[0], p.num_heads_q, p.q.shape[2], p.head_dim_v});
}

// Writable, and none of the problem's own inputs.
void require_output(const char* name, const TensorView& t, const Problem& p) {
  if (!is_present(t)) return;
  require_no_overlap(name, t);
  require_apart(name, t, "q", p.q);
  require_apart(name, t, "k", p.k);
  require_apart(name, t, "v", p.v);
}

// Paged keys have no axis to follow: any that holds the longest sequence will do.
int64_t resolve_key_axis(const char* name, const TensorView& t, const Problem& p, int axis) {
  if (p.page_size == 0) return p.k.shape[2];
  require(t.ndim > axis && t.shape[axis] >= p.seqlen_k, name,
          " must have a last axis of at least the longest kv_length ", p.seqlen_k, ", found shape ",
          shape_of(t));
  return t.shape[axis];
}

struct OptionGradient {
  const char* name;
  attnext_tensor attnext_gradients::* gradient;
  const char* option_name;
  attnext_tensor attnext_options::* option;
};

constexpr OptionGradient kOptionGradients[] = {
    {"dbias", &attnext_gradients::dbias, "bias", &attnext_options::bias},
    {"dalibi_slopes", &attnext_gradients::dalibi_slopes, "alibi_slopes",
     &attnext_options::alibi_slopes},
    {"dsinks", &attnext_gradients::dsinks, "sinks", &attnext_options::sinks},
    {"dscale", &attnext_gradients::dscale, "scale_per_head", &attnext_options::scale_per_head},
    {"dweight", &attnext_gradients::dweight, "weight", &attnext_options::weight},
    {"dscore_bias", &attnext_gradients::dscore_bias, "score_bias", &attnext_options::score_bias},
};

void check_option_gradients(const Resolved& r, const attnext_gradients& gradients) {
  for (const OptionGradient& g : kOptionGradients) {
    const TensorView gradient = optional_tensor(g.name, &(gradients.*g.gradient));
    if (!is_present(gradient)) continue;
    const TensorView& option = r.options.*g.option;
    require_float(g.name, gradient);
    require(is_present(option), g.name, " must be asked for only with ", g.option_name,
            ", found no ", g.option_name);
    require(std::equal(option.shape, option.shape + option.ndim, gradient.shape,
                       gradient.shape + gradient.ndim),
            g.name, " must have ", g.option_name, "'s shape ", shape_of(option), ", found ",
            shape_of(gradient));
    require_output(g.name, gradient, r.problem);
    require_apart(g.name, gradient, g.option_name, option);
  }
}

TensorView with_four_axes(const TensorView& t) {
  TensorView padded = t;
  if (!is_present(t)) return padded;
  padded.ndim = 4;
  for (int axis = 0; axis < 4; ++axis) {
    const int source = axis - (4 - t.ndim);
    padded.shape[axis] = source < 0 ? 1 : t.shape[source];
    padded.strides[axis] = source < 0 ? 0 : t.strides[source];
  }
  return padded;
}

void require_gradient(const char* name, const TensorView& gradient, const char* axes,
                      const TensorView& input, const Problem& p) {
  if (!is_present(gradient)) return;
  require_shape(name, gradient, axes,
                {input.shape[0], input.shape[1], input.shape[2], input.shape[3]});
  require_output(name, gradient, p);
}

void check_gradients_apart(const BackwardParams& params) {
  const std::pair<const char*, const TensorView*> written[] = {
      {"dq", &params.dq}, {"dk", &params.dk}, {"dv", &params.dv}, {"dbias", &params.dbias}};
  const std::pair<const char*, const TensorView*> read[] = {
      {"dout", &params.dout}, {"out", &params.out}, {"lse", &params.lse}, {"dlse", &params.dlse}};
  for (const auto& [name, gradient] : written) {
    for (const auto& [input_name, input] : read) require_apart(name, *gradient, input_name, *input);
    for (const auto& [other_name, other] : written) {
      if (other != gradient) require_apart(name, *gradient, other_name, *other);
    }
  }
}

// All rows in order where none are chosen.
std::vector<int64_t> read_row_list(const TensorView& chosen, int64_t num_rows, int64_t all_rows) {
  std::vector<int64_t> rows(static_cast<size_t>(num_rows));
  for (int64_t i = 0; i < num_rows; ++i) {
    rows[i] = is_present(chosen) ? read_integer(chosen, i * chosen.strides[0]) : i;
    require(rows[i] >= 0 && rows[i] < all_rows, "rows must be in [0, ", all_rows, "), found ",
            rows[i], " at index ", i);
  }
  return rows;
}

// Kernels take rows in order: places keep that of the caller.
void sort_rows(ChosenRows& chosen) {
  const std::vector<int64_t> given = chosen.rows;
  chosen.places.resize(given.size());
  std::iota(chosen.places.begin(), chosen.places.end(), int64_t{0});
  std::stable_sort(chosen.places.begin(), chosen.places.end(),
                   [&](int64_t a, int64_t b) { return given[a] < given[b]; });
  std::transform(chosen.places.begin(), chosen.places.end(), chosen.rows.begin(),
                 [&](int64_t place) { return given[place]; });
}

// From sorted rows of the packed axis to queries of one sequence after the other.
void split_rows(const std::vector<Sequence>& sequences, ChosenRows& chosen) {
  size_t at = 0;
  chosen.begins = {0};
  for (const Sequence& sequence : sequences) {
    const int64_t end = sequence.q_begin + sequence.mask.seqlen_q;
    for (; at < chosen.rows.size() && chosen.rows[at] < end; ++at) {
      chosen.rows[at] -= sequence.q_begin;
    }
    chosen.begins.push_back(static_cast<int64_t>(at));
  }
}

void check_backward_dtypes(const BackwardParams& params) {
  const Problem& p = params.problem;
  const DType dtype = dtype_of(p.q);
  require_dtype("dout", params.dout, dtype, "q's dtype");
  require_out_dtype(params.out, p);
  require_row_dtype("lse", params.lse, p);
  require_row_dtype("dlse", params.dlse, p);
  if (is_present(params.dq)) require_dtype("dq", params.dq, dtype, "q's dtype");
  if (is_present(params.dk)) require_dtype("dk", params.dk, dtype, "k's dtype");
  if (is_present(params.dv)) require_dtype("dv", params.dv, dtype, "v's dtype");
}

void check_backward_shapes(const BackwardParams& params) {
  const Problem& p = params.problem;
  require_out_shape("dout", params.dout, p);
  require_out_shape("out", params.out, p);
  require_row_shape("lse", params.lse, p);
  require_row_shape("dlse", params.dlse, p);
  require_gradient("dq", params.dq, "(batch, num_heads_q, seqlen_q, head_dim)", p.q, p);
  require_gradient("dk", params.dk, "(batch, num_heads_kv, seqlen_k, head_dim)", p.k, p);
  require_gradient("dv", params.dv, "(batch, num_heads_kv, seqlen_k, head_dim_v)", p.v, p);
}

}  // namespace

ForwardParams resolve_forward(const Resolved& r, const attnext_tensor* out,
                              const attnext_tensor* lse) {
  const Problem& p = r.problem;
  const ForwardParams params{
      .problem = p, .out = required_tensor("out", out), .lse = optional_tensor("lse", lse)};
  require_out_dtype(params.out, p);
  require_row_dtype("lse", params.lse, p);
  require_out_shape("out", params.out, p);
  require_row_shape("lse", params.lse, p);
  require_output("out", params.out, p);
  require_output("lse", params.lse, p);
  require_apart("lse", params.lse, "out", params.out);
  return params;
}

BackwardParams resolve_backward(const Resolved& r, const BackwardInputs& inputs,
                                const attnext_gradients& gradients) {
  const BackwardParams params{.problem = r.problem,
                              .dout = required_tensor("dout", inputs.dout),
                              .out = required_tensor("out", inputs.out),
                              .lse = required_tensor("lse", inputs.lse),
                              .dlse = optional_tensor("dlse", inputs.dlse),
                              .dq = optional_tensor("dq", &gradients.dq),
                              .dk = optional_tensor("dk", &gradients.dk),
                              .dv = optional_tensor("dv", &gradients.dv),
                              .dbias = with_four_axes(optional_tensor("dbias", &gradients.dbias)),
                              .dalibi_slopes = nullptr,
                              .dsinks = nullptr,
                              .dscale = nullptr,
                              .dweight = nullptr,
                              .dscore_bias = nullptr};
  check_backward_dtypes(params);
  check_backward_shapes(params);
  check_option_gradients(r, gradients);
  check_gradients_apart(params);
  return params;
}

WeightsParams resolve_weights(const Resolved& r, const attnext_tensor* rows,
                              const attnext_tensor* p, ChosenRows& chosen_rows) {
  WeightsParams params{.problem = r.problem,
                       .rows = nullptr,
                       .places = nullptr,
                       .begins = nullptr,
                       .num_rows = 0,
                       .p = {}};
  Problem& problem = params.problem;
  params.p = required_tensor("p", p);
  require_float("p", params.p);
  const TensorView chosen = optional_tensor("rows", rows);
  if (is_present(chosen)) {
    require_integer("rows", chosen);
    require(chosen.ndim == 1, "rows must have one axis, found shape ", shape_of(chosen));
  }
  params.num_rows = is_present(chosen) ? chosen.shape[0] : problem.q.shape[2];
  if (!problem.is_packed) problem.seqlen_k = resolve_key_axis("p", params.p, problem, 3);
  require_shape("p", params.p, "(batch, num_heads_q, num_rows, seqlen_k)",
                {problem.q.shape[0], problem.num_heads_q, params.num_rows, problem.seqlen_k});
  require_output("p", params.p, problem);
  if (num_elements(params.p) == 0 && !is_present(chosen)) return params;
  chosen_rows.rows = read_row_list(chosen, params.num_rows, problem.q.shape[2]);
  sort_rows(chosen_rows);
  if (problem.is_packed) {
    split_rows(r.sequences, chosen_rows);
    params.begins = chosen_rows.begins.data();
  }
  params.rows = chosen_rows.rows.data();
  params.places = chosen_rows.places.data();
  return params;
}

StatsParams resolve_stats(const Resolved& r, const StatsOutputs& outputs) {
  StatsParams params{.problem = r.problem,
                     .lse = optional_tensor("lse", outputs.lse),
                     .row_max = optional_tensor("row_max", outputs.row_max),
                     .entropy = optional_tensor("entropy", outputs.entropy),
                     .key_mass = optional_tensor("key_mass", outputs.key_mass)};
  Problem& p = params.problem;
  const std::pair<const char*, const TensorView*> all[] = {{"lse", &params.lse},
                                                           {"row_max", &params.row_max},
                                                           {"entropy", &params.entropy},
                                                           {"key_mass", &params.key_mass}};
  for (const auto& [name, tensor] : all) require_row_dtype(name, *tensor, p);
  for (const auto& [name, tensor] : all) {
    if (tensor != &params.key_mass) require_row_shape(name, *tensor, p);
    require_output(name, *tensor, p);
  }
  if (is_present(params.key_mass)) {
    const int64_t keys = resolve_key_axis("key_mass", params.key_mass, p, 2);
    require_shape("key_mass", params.key_mass, "(batch, num_heads_q, seqlen_k)",
                  {p.q.shape[0], p.num_heads_q, keys});
    if (p.page_size > 0) p.seqlen_k = keys;
  }
  return params;
}

}  // namespace attnext
