// Which q, k, v and options make a problem: dtypes first, then shapes, then values.
#include "attention/validate.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "attention/elements.h"
#include "attention/error.h"
#include "attention/tensor_rules.h"

namespace attnext {
namespace {

struct OptionTensor {
  const char* name;
  attnext_tensor attnext_options::* field;
  void (*require_type)(const char* name, const TensorView& t);
};

constexpr OptionTensor kOptionTensors[] = {
    {"scale_per_head", &attnext_options::scale_per_head, require_float},
    {"q_offset", &attnext_options::q_offset, require_integer},
    {"mask", &attnext_options::mask, require_bool},
    {"bias", &attnext_options::bias, require_float},
    {"alibi_slopes", &attnext_options::alibi_slopes, require_float},
    {"sinks", &attnext_options::sinks, require_float},
    {"weight", &attnext_options::weight, require_float},
    {"score_bias", &attnext_options::score_bias, require_float},
    {"q_lengths", &attnext_options::q_lengths, require_integer},
    {"kv_lengths", &attnext_options::kv_lengths, require_integer},
    {"cu_seqlens_q", &attnext_options::cu_seqlens_q, require_integer},
    {"cu_seqlens_k", &attnext_options::cu_seqlens_k, require_integer},
    {"block_table", &attnext_options::block_table, require_integer},
};

// Fields are only ever appended: a smaller struct is an older caller's, its missing fields default.
template <class Struct>
void copy_known(Struct& target, const Struct* source, const char* name) {
  if (source == nullptr) return;
  require(source->struct_size > 0 && source->struct_size <= sizeof(Struct), name,
          " must have a struct_size of 1 to ", sizeof(Struct), ", found ", source->struct_size);
  std::memcpy(&target, source, source->struct_size);
  target.struct_size = sizeof(Struct);
}

void check_dtypes(const Problem& p, const attnext_options& options) {
  require_float("q", p.q);
  require_dtype("k", p.k, dtype_of(p.q), "q's dtype");
  if (is_present(p.v)) require_dtype("v", p.v, dtype_of(p.q), "q's dtype");
  for (const OptionTensor& option : kOptionTensors) {
    const TensorView t = optional_tensor(option.name, &(options.*option.field));
    if (is_present(t)) option.require_type(option.name, t);
  }
}

void require_axis(const char* name, const TensorView& t, int axis, int64_t size,
                  const char* owner) {
  require(t.shape[axis] == size, name, " must have ", owner, " ", size, ", found ", t.shape[axis],
          " in shape ", shape_of(t));
}

void require_axes(const char* name, const TensorView& t, const char* axes) {
  require(t.ndim == 4, name, " must have axes ", axes, ", found shape ", shape_of(t));
}

void check_first_axes(const Problem& p) {
  if (p.page_size > 0) return;
  if (p.is_packed) {
    for (const auto& [name, t] : {std::pair{"q", &p.q}, std::pair{"k", &p.k}}) {
      require(t->shape[0] == 1, name,
              " must have batch 1 with cu_seqlens_q and cu_seqlens_k, found ", t->shape[0],
              " in shape ", shape_of(*t));
    }
  } else {
    require_axis("k", p.k, 0, p.q.shape[0], "q's batch");
  }
}

void check_value_axes(const Problem& p) {
  const bool is_paged = p.page_size > 0;
  require_axes("v", p.v,
               is_paged ? "(num_pages, num_heads_kv, page_size, head_dim_v)"
                        : "(batch, num_heads_kv, seqlen_k, head_dim_v)");
  require_axis("v", p.v, 0, p.k.shape[0], is_paged ? "k's num_pages" : "k's batch");
  require_axis("v", p.v, 1, p.k.shape[1], "k's num_heads_kv");
  require_axis("v", p.v, 2, p.k.shape[2], is_paged ? "k's page_size" : "k's seqlen_k");
}

void resolve_shapes(const attnext_options& options, Problem& p) {
  const bool is_paged = is_present(options.block_table);
  p.is_packed = is_present(options.cu_seqlens_q);
  require_axes("q", p.q, "(batch, num_heads_q, seqlen_q, head_dim)");
  require_axes("k", p.k,
               is_paged ? "(num_pages, num_heads_kv, page_size, head_dim)"
                        : "(batch, num_heads_kv, seqlen_k, head_dim)");
  p.page_size = is_paged ? p.k.shape[2] : 0;
  require(!is_paged || p.page_size > 0, "k must have page_size of at least 1, found 0");
  check_first_axes(p);
  p.num_heads_q = p.q.shape[1];
  p.num_heads_kv = p.k.shape[1];
  const bool is_multiple =
      p.num_heads_kv > 0 ? p.num_heads_q % p.num_heads_kv == 0 : p.num_heads_q == 0;
  require(is_multiple, "q must have num_heads_q a multiple of k's num_heads_kv ", p.num_heads_kv,
          ", found ", p.num_heads_q);
  p.group_size = p.num_heads_kv > 0 ? p.num_heads_q / p.num_heads_kv : 0;
  p.head_dim = p.q.shape[3];
  require(p.head_dim > 0, "q must have head_dim of at least 1, found 0");
  require_axis("k", p.k, 3, p.head_dim, "q's head_dim");
  if (is_present(p.v)) check_value_axes(p);
  p.head_dim_v = is_present(p.v) ? p.v.shape[3] : 0;
  p.batch = p.is_packed ? options.cu_seqlens_q.shape[0] - 1 : p.q.shape[0];
  p.seqlen_q = p.q.shape[2];
  p.seqlen_k = p.k.shape[2];
  int64_t count = 0;
  const bool overflows = __builtin_mul_overflow(p.batch, p.num_heads_q, &count) ||
                         __builtin_mul_overflow(count, p.head_dim, &count);
  require(!overflows, "q must have batch * num_heads_q * head_dim within 64 bits, found shape ",
          shape_of(p.q), " with ", p.batch, " sequences");
}

void check_combinations(const attnext_options& o) {
  const bool is_packed = is_present(o.cu_seqlens_q), is_paged = is_present(o.block_table);
  require(is_packed == is_present(o.cu_seqlens_k),
          "cu_seqlens_q and cu_seqlens_k must be given together, found only ",
          is_packed ? "cu_seqlens_q" : "cu_seqlens_k");
  require(!is_packed || !is_present(o.q_lengths),
          "q_lengths must not be given with cu_seqlens_q, found both");
  require(!is_packed || !is_present(o.kv_lengths),
          "kv_lengths must not be given with cu_seqlens_k, found both");
  require(!is_packed || !is_paged, "block_table must not be given with cu_seqlens_k, found both");
  require(!is_paged || is_present(o.kv_lengths),
          "kv_lengths must be given with block_table, found none");
}

// The tensor seen with four axes, right-aligned. Over pages its last axis may also be as long as a
// row of block_table reaches: a caller need not know the longest length.
TensorView broadcast(const char* name, const TensorView& t, const Resolved& r) {
  const Problem& p = r.problem;
  if (!is_present(t)) return t;
  const int64_t full[4] = {p.batch, p.num_heads_q, p.seqlen_q, p.seqlen_k};
  const bool is_paged = p.page_size > 0;
  const int64_t reach = is_paged ? available_keys(r.options, p) : p.seqlen_k;
  const char* const axes = p.is_packed ? "(num_sequences, num_heads_q, longest_q, longest_k)"
                                       : "(batch, num_heads_q, seqlen_q, seqlen_k)";
  TensorView expanded = t;
  expanded.ndim = 4;
  for (int axis = 0; axis < 4; ++axis) {
    const int source = axis - (4 - t.ndim);
    const int64_t size = source < 0 ? 1 : t.shape[source];
    const bool fits = size == 1 || size == full[axis] || (axis == 3 && size == reach);
    require(fits || !is_paged, name,
            " must broadcast to (batch, num_heads_q, seqlen_q, longest kv_length) = ",
            ShapeText{full, 4}, ", or have a last axis of max_pages * page_size = ", reach,
            ", found ", shape_of(t));
    require(fits, name, " must broadcast to ", axes, " = ", ShapeText{full, 4}, ", found ",
            shape_of(t));
    expanded.shape[axis] = full[axis];
    expanded.strides[axis] = size == 1 ? 0 : t.strides[source];
  }
  return expanded;
}

void require_rows(const char* name, const TensorView& t, const char* owner, int64_t rows,
                  int64_t columns) {
  const bool has_columns = t.ndim == 1 && t.shape[0] == columns;
  const bool has_rows = t.ndim == 2 && t.shape[0] == rows && t.shape[1] == columns;
  const int64_t both[2] = {rows, columns};
  require(has_columns || has_rows, name, " must have shape ", owner, " = ", ShapeText{both + 1, 1},
          " or ", ShapeText{both, 2}, ", found ", shape_of(t));
}

void resolve_score(Resolved& r) {
  const attnext_options& o = r.options;
  Problem& p = r.problem;
  require(o.score >= ATTNEXT_DOT && o.score <= ATTNEXT_ADDITIVE,
          "score must be a code from 0 to 4, found ", o.score);
  p.score = static_cast<Score>(o.score);
  const bool is_additive = p.score == Score::kAdditive;
  require(is_additive == is_present(o.weight), "weight must be given with score additive and only ",
          "then, found ", is_additive ? "none" : "one with another score");
  require(is_additive || !is_present(o.score_bias),
          "score_bias must be given only with score additive, found one with another score");
  if (!is_additive) return;
  const char* axes = "(head_dim,) or (num_heads_q, head_dim)";
  require_rows("weight", o.weight, axes, p.num_heads_q, p.head_dim);
  r.weight = read_rows(o.weight, p.num_heads_q, p.head_dim);
  if (!is_present(o.score_bias)) return;
  require_rows("score_bias", o.score_bias, axes, p.num_heads_q, p.head_dim);
  r.score_bias = read_rows(o.score_bias, p.num_heads_q, p.head_dim);
}

void resolve_scale(Resolved& r) {
  const attnext_options& o = r.options;
  const Problem& p = r.problem;
  if (is_present(o.scale_per_head)) {
    require_shape("scale_per_head", o.scale_per_head, "(num_heads_q,)", {p.num_heads_q});
    r.scale = read_rows(o.scale_per_head, 1, p.num_heads_q);
    return;
  }
  const DType accumulator = kDTypes[p.q.dtype].accumulator;
  const double largest = accumulator == DType::kFloat32 ? std::numeric_limits<float>::max()
                                                        : std::numeric_limits<double>::max();
  require(std::isnan(o.scale) || std::fabs(o.scale) <= largest, "scale must be finite in ",
          accumulator, ", in which scores are computed, found ", o.scale);
  require(!std::isnan(o.scale) || p.score != Score::kCosine,
          "scale must be given with score cosine, found none");
  const double standard = p.score == Score::kDot ? 1 / std::sqrt(double(p.head_dim)) : 1;
  r.scale.assign(static_cast<size_t>(p.num_heads_q), std::isnan(o.scale) ? standard : o.scale);
}

void resolve_modifiers(Resolved& r) {
  const attnext_options& o = r.options;
  Problem& p = r.problem;
  require(std::isfinite(o.softcap) && o.softcap >= 0,
          "softcap must be finite and at least 0, found ", o.softcap);
  p.softcap = o.softcap;
  require(o.dropout >= 0 && o.dropout <= 1, "dropout must be in [0, 1], found ", o.dropout);
  p.dropout = {o.dropout, o.seed, o.dropout_stream};
  p.mask = broadcast("mask", o.mask, r);
  p.bias = broadcast("bias", o.bias, r);
  if (is_present(o.alibi_slopes)) {
    require_rows("alibi_slopes", o.alibi_slopes, "(num_heads_q,) or (batch, num_heads_q)", p.batch,
                 p.num_heads_q);
    // An empty problem may claim any batch without having memory for it.
    if (!is_empty(p)) r.alibi_slopes = read_rows(o.alibi_slopes, p.batch, p.num_heads_q);
  }
  if (is_present(o.sinks)) {
    require_shape("sinks", o.sinks, "(num_heads_q,)", {p.num_heads_q});
    r.sinks = read_rows(o.sinks, 1, p.num_heads_q);
  }
}

void point_to_arrays(Resolved& r) {
  const auto data = [](const std::vector<double>& v) { return v.empty() ? nullptr : v.data(); };
  r.problem.sequences = r.sequences.data();
  r.problem.scale = data(r.scale);
  r.problem.alibi_slopes = data(r.alibi_slopes);
  r.problem.sinks = data(r.sinks);
  r.problem.weight = data(r.weight);
  r.problem.score_bias = data(r.score_bias);
}

// Dense tensors keep their own axes, which masks and outputs follow; elsewhere the sequences say.
void set_longest(Resolved& r) {
  Problem& p = r.problem;
  if (!p.is_packed && p.page_size == 0) return;
  int64_t longest_q = 0, longest_k = 0;
  for (const Sequence& s : r.sequences) {
    longest_q = std::max(longest_q, s.mask.seqlen_q);
    longest_k = std::max(longest_k, s.mask.seqlen_k);
  }
  if (p.is_packed) p.seqlen_q = longest_q;
  p.seqlen_k = longest_k;
}

}  // namespace

attnext_options complete_options(const attnext_options* options) {
  attnext_options complete;
  attnext_options_init(&complete);
  copy_known(complete, options, "options");
  return complete;
}

attnext_gradients complete_gradients(const attnext_gradients* gradients) {
  attnext_gradients complete;
  attnext_gradients_init(&complete);
  copy_known(complete, gradients, "gradients");
  return complete;
}

Resolved resolve_problem(const attnext_tensor* q, const attnext_tensor* k, const attnext_tensor* v,
                         Values values, const attnext_options* options) {
  Resolved r{};
  r.options = complete_options(options);
  Problem& p = r.problem;
  p.q = required_tensor("q", q);
  p.k = required_tensor("k", k);
  if (values == Values::kNeeded) p.v = required_tensor("v", v);
  check_dtypes(p, r.options);
  check_combinations(r.options);
  check_sequence_ranks(r.options);
  resolve_shapes(r.options, p);
  r.sequences = resolve_sequences(r.options, p);
  set_longest(r);
  p.block_table = r.options.block_table;
  resolve_score(r);
  resolve_scale(r);
  resolve_modifiers(r);
  point_to_arrays(r);
  return r;
}

}  // namespace attnext
