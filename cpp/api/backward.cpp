// How gradients are asked for, and how per-(sequence, head) sums become those of small options.
#include <vector>

#include "api/guard.h"
#include "attention/elements.h"
#include "attention/validate.h"

using namespace attnext;

namespace {

// The gradient of a per-head option, kept as float64 parts [batch, num_heads_q, columns] until all
// are there. An axis that the option lacks has extent 1: it is summed over.
struct HeadSums {
  TensorView gradient;
  int64_t extents[3], strides[3];
  std::vector<double> parts;

  double* data() { return is_present(gradient) ? parts.data() : nullptr; }
};

HeadSums make_sums(const Problem& p, const TensorView& gradient, int64_t columns) {
  HeadSums sums{gradient, {1, 1, columns}, {0, 0, 0}, {}};
  if (!is_present(gradient)) return sums;
  sums.parts.assign(static_cast<size_t>(p.batch * p.num_heads_q * columns), 0.0);
  return sums;
}

// Of an option (num_heads_q,) or (batch, num_heads_q).
HeadSums sums_per_head(const Problem& p, const TensorView& gradient) {
  HeadSums sums = make_sums(p, gradient, 1);
  if (!is_present(gradient)) return sums;
  sums.extents[1] = p.num_heads_q;
  sums.strides[1] = gradient.strides[gradient.ndim - 1];
  if (gradient.ndim == 1) return sums;
  sums.extents[0] = p.batch;
  sums.strides[0] = gradient.strides[0];
  return sums;
}

// Of an option (head_dim,) or (num_heads_q, head_dim).
HeadSums sums_per_column(const Problem& p, const TensorView& gradient) {
  HeadSums sums = make_sums(p, gradient, p.head_dim);
  if (!is_present(gradient)) return sums;
  sums.strides[2] = gradient.strides[gradient.ndim - 1];
  if (gradient.ndim == 1) return sums;
  sums.extents[1] = p.num_heads_q;
  sums.strides[1] = gradient.strides[0];
  return sums;
}

// In index order, whatever the threads did: the bits do not depend on them.
void store(const HeadSums& sums, const Problem& p) {
  if (!is_present(sums.gradient)) return;
  const auto [batch, heads, columns] = sums.extents;
  std::vector<double> totals(static_cast<size_t>(batch * heads * columns), 0.0);
  for (int64_t b = 0; b < p.batch; ++b) {
    for (int64_t h = 0; h < p.num_heads_q; ++h) {
      const double* const part = &sums.parts[(b * p.num_heads_q + h) * columns];
      double* const total = &totals[(b % batch * heads + h % heads) * columns];
      for (int64_t c = 0; c < columns; ++c) total[c] += part[c];
    }
  }
  for (int64_t i = 0; i < batch * heads * columns; ++i) {
    const int64_t b = i / (heads * columns), h = i / columns % heads, c = i % columns;
    const int64_t offset = b * sums.strides[0] + h * sums.strides[1] + c * sums.strides[2];
    write_float(sums.gradient, offset, totals[i]);
  }
}

void zero_all(const attnext_gradients& g) {
  for (const TensorView& gradient :
       {g.dq, g.dk, g.dv, g.dbias, g.dalibi_slopes, g.dsinks, g.dscale, g.dweight, g.dscore_bias}) {
    fill_zero(gradient);
  }
}

void run_backward(BackwardParams params, const attnext_gradients& gradients,
                  const cpu::Kernels& kernels) {
  const Problem& p = params.problem;
  if (is_empty(p)) return zero_all(gradients);
  HeadSums dalibi_slopes = sums_per_head(p, gradients.dalibi_slopes);
  HeadSums dsinks = sums_per_head(p, gradients.dsinks);
  HeadSums dscale = sums_per_head(p, gradients.dscale);
  HeadSums dweight = sums_per_column(p, gradients.dweight);
  HeadSums dscore_bias = sums_per_column(p, gradients.dscore_bias);
  params.dalibi_slopes = dalibi_slopes.data();
  params.dsinks = dsinks.data();
  params.dscale = dscale.data();
  params.dweight = dweight.data();
  params.dscore_bias = dscore_bias.data();
  kernels.backward(params);
  for (const HeadSums* sums : {&dalibi_slopes, &dsinks, &dscale, &dweight, &dscore_bias}) {
    store(*sums, p);
  }
}

}  // namespace

attnext_status attnext_backward(const attnext_tensor* dout, const attnext_tensor* q,
                                const attnext_tensor* k, const attnext_tensor* v,
                                const attnext_tensor* out, const attnext_tensor* lse,
                                const attnext_tensor* dlse, const attnext_options* options,
                                const attnext_gradients* gradients) {
  return api::guarded("attention_backward", [&] {
    const cpu::Kernels& kernels = api::usable_kernels();
    require(!is_present(complete_options(options).block_table), ErrorKind::kNotImplemented,
            "block_table is not supported here, found paged keys");
    const attnext_gradients wanted = complete_gradients(gradients);
    const Resolved resolved = resolve_problem(q, k, v, Values::kNeeded, options);
    run_backward(resolve_backward(resolved, {dout, out, lse, dlse}, wanted), wanted, kernels);
  });
}
