// How partial results over disjoint keys join: out = sum of e^(lse_i - lse) out_i.
#include <cmath>
#include <limits>
#include <vector>

#include "api/backend.h"
#include "api/guard.h"
#include "attention/elements.h"
#include "attention/tensor_rules.h"
#include "attention/validate.h"
#include "cpu/parallel.h"

using namespace attnext;

namespace {

constexpr const char* kOutAxes = "(batch, num_heads_q, seqlen_q, head_dim_v)";
constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Row {
  int64_t index[3];  // batch, head, query

  int64_t offset(const TensorView& t) const {
    return index[0] * t.strides[0] + index[1] * t.strides[1] + index[2] * t.strides[2];
  }
};

Row row_at(const TensorView& out, int64_t row) {
  const int64_t heads = out.shape[1], queries = out.shape[2];
  return {{row / queries / heads, row / queries % heads, row % queries}};
}

struct Part {
  double weight;  // first its lse, then e^(lse_i - lse)
  const TensorView* out;
};

// Finds the parts of a row that have keys and returns lse. A part without keys, lse -inf, does not
// count, whatever its out holds; all others do, so that NaN reaches the result.
double read_parts(const MergeParams& m, const Row& row, Part* parts, int64_t& num_parts) {
  double largest = -kInfinity, sum = 0;
  num_parts = 0;
  for (int64_t i = 0; i < m.count; ++i) {
    const double lse = read_float(m.lses[i], row.offset(m.lses[i]));
    if (lse == -kInfinity) continue;
    parts[num_parts++] = {lse, &m.outs[i]};
    largest = lse > largest ? lse : largest;
  }
  if (num_parts == 0) return -kInfinity;
  for (int64_t i = 0; i < num_parts; ++i) sum += std::exp(parts[i].weight - largest);
  const double lse = largest + std::log(sum);
  for (int64_t i = 0; i < num_parts; ++i) parts[i].weight = std::exp(parts[i].weight - lse);
  return lse;
}

void merge_row(const MergeParams& m, int64_t index, Part* parts) {
  const Row row = row_at(m.out, index);
  int64_t num_parts = 0;
  const double lse = read_parts(m, row, parts, num_parts);
  if (is_present(m.lse)) write_float(m.lse, row.offset(m.lse), lse);
  for (int64_t d = 0; d < m.out.shape[3]; ++d) {
    double sum = 0;
    for (int64_t i = 0; i < num_parts; ++i) {
      const TensorView& part = *parts[i].out;
      sum += parts[i].weight * read_float(part, row.offset(part) + d * part.strides[3]);
    }
    write_float(m.out, row.offset(m.out) + d * m.out.strides[3], sum);
  }
}

void require_lse(const char* name, const TensorView& lse, const TensorView& out) {
  const DType expected = kDTypes[out.dtype].accumulator;
  require(dtype_of(lse) == expected, ErrorKind::kType, name, " must be ", expected, " for outs of ",
          dtype_of(out), ", found ", dtype_of(lse));
  require_shape(name, lse, "(batch, num_heads_q, seqlen_q)",
                {out.shape[0], out.shape[1], out.shape[2]});
}

void check_part(const MergeParams& m, int64_t i) {
  const TensorView out = required_tensor("outs", &m.outs[i]);
  const TensorView lse = required_tensor("lses", &m.lses[i]);
  require_float("outs", out);
  require_dtype("outs", out, dtype_of(m.outs[0]), "one dtype,");
  require(out.ndim == 4, "outs must have axes ", kOutAxes, ", found shape ", shape_of(out),
          " at index ", i);
  const int64_t* const shape = m.outs[0].shape;
  require_shape("outs", out, kOutAxes, {shape[0], shape[1], shape[2], shape[3]});
  require_lse("lses", lse, out);
}

MergeParams resolve_merge(const attnext_tensor* outs, const attnext_tensor* lses, int64_t count,
                          const attnext_tensor* out, const attnext_tensor* lse) {
  require(count >= 1, "outs must hold at least one partial result, found ", count);
  require(outs != nullptr && lses != nullptr, "outs and lses must be given, found a null pointer");
  const MergeParams m{outs, lses, count, required_tensor("out", out), optional_tensor("lse", lse)};
  for (int64_t i = 0; i < count; ++i) check_part(m, i);
  const int64_t* const shape = outs[0].shape;
  require_dtype("out", m.out, dtype_of(outs[0]), "the dtype of outs,");
  require_shape("out", m.out, kOutAxes, {shape[0], shape[1], shape[2], shape[3]});
  require_no_overlap("out", m.out);
  if (!is_present(m.lse)) return m;
  require_lse("lse", m.lse, m.out);
  require_no_overlap("lse", m.lse);
  return m;
}

struct MergeJob {
  const MergeParams* merge;
  std::vector<Part> parts;  // [workers, count]
};

void run_merge(const MergeParams& m) {
  const int64_t rows = m.out.shape[0] * m.out.shape[1] * m.out.shape[2];
  // A part's lse costs an exponential twice, an element of out a conversion and a product.
  const double row_cost = static_cast<double>(m.count) * (50.0 + 10.0 * m.out.shape[3]);
  const int workers = cpu::num_workers(rows, row_cost * static_cast<double>(rows));
  MergeJob job{&m, std::vector<Part>(static_cast<size_t>(workers * m.count))};
  cpu::parallel_for(
      rows, workers,
      [](void* context, int64_t row, int worker) {
        MergeJob& j = *static_cast<MergeJob*>(context);
        merge_row(*j.merge, row, &j.parts[worker * j.merge->count]);
      },
      &job);
}

}  // namespace

attnext_status attnext_merge_on(const attnext_options* options, const attnext_tensor* outs,
                                const attnext_tensor* lses, int64_t count,
                                const attnext_tensor* out, const attnext_tensor* lse) {
  return api::guarded("merge_attention", [&] {
    const api::Target target = api::choose_target(complete_options(options));
    const MergeParams params = resolve_merge(outs, lses, count, out, lse);
    if (num_elements(params.out) == 0 && num_elements(params.lse) == 0) return;
    if (target.plugin) return target.run(&Plugin::merge, params);
    run_merge(params);
  });
}

attnext_status attnext_merge(const attnext_tensor* outs, const attnext_tensor* lses, int64_t count,
                             const attnext_tensor* out, const attnext_tensor* lse) {
  return attnext_merge_on(nullptr, outs, lses, count, out, lse);
}
