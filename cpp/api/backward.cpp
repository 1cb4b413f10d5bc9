// How gradients are asked for, and how per-(sequence, head) sums become those of small options.
#include <algorithm>
#include <iterator>
#include <vector>

#include "api/backend.h"
#include "api/guard.h"
#include "attention/elements.h"
#include "attention/head_sums.h"
#include "attention/validate.h"

using namespace attnext;

namespace {

// The gradient of a per-head option, kept as float64 parts until all are there.
struct HeadParts {
  HeadSums sums;
  std::vector<double> parts;  // [batch, num_heads_q, columns]

  HeadParts(const Problem& p, const HeadSums& wanted) : sums(wanted) {
    if (!is_present(sums.gradient)) return;
    parts.assign(static_cast<size_t>(p.batch * p.num_heads_q * sums.columns), 0.0);
  }
  double* data() { return is_present(sums.gradient) ? parts.data() : nullptr; }
};

// In index order, whatever the threads did: the bits do not depend on them.
void store(const HeadParts& head, const Problem& p) {
  const HeadSums& sums = head.sums;
  if (!is_present(sums.gradient)) return;
  const auto [batch, heads, columns] = sums.extents;
  std::vector<double> totals(static_cast<size_t>(batch * heads * columns), 0.0);
  for (int64_t b = 0; b < p.batch; ++b) {
    for (int64_t h = 0; h < p.num_heads_q; ++h) {
      const double* const part = &head.parts[(b * p.num_heads_q + h) * columns];
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

bool is_any_wanted(const attnext_gradients& g) {
  const TensorView all[] = {g.dq,     g.dk,     g.dv,      g.dbias,      g.dalibi_slopes,
                            g.dsinks, g.dscale, g.dweight, g.dscore_bias};
  return std::any_of(std::begin(all), std::end(all), is_present);
}

void run_backward(BackwardParams params, const attnext_gradients& gradients,
                  const cpu::Kernels& kernels) {
  const Problem& p = params.problem;
  if (is_empty(p)) return zero_all(gradients);
  HeadParts dalibi_slopes(p, sums_per_head(p, gradients.dalibi_slopes));
  HeadParts dsinks(p, sums_per_head(p, gradients.dsinks));
  HeadParts dscale(p, sums_per_head(p, gradients.dscale));
  HeadParts dweight(p, sums_per_column(p, gradients.dweight));
  HeadParts dscore_bias(p, sums_per_column(p, gradients.dscore_bias));
  params.dalibi_slopes = dalibi_slopes.data();
  params.dsinks = dsinks.data();
  params.dscale = dscale.data();
  params.dweight = dweight.data();
  params.dscore_bias = dscore_bias.data();
  kernels.backward(params);
  for (const HeadParts* head : {&dalibi_slopes, &dsinks, &dscale, &dweight, &dscore_bias}) {
    store(*head, p);
  }
}

}  // namespace

attnext_status attnext_backward(const attnext_tensor* dout, const attnext_tensor* q,
                                const attnext_tensor* k, const attnext_tensor* v,
                                const attnext_tensor* out, const attnext_tensor* lse,
                                const attnext_tensor* dlse, const attnext_options* options,
                                const attnext_gradients* gradients) {
  return api::guarded("attention_backward", [&] {
    const attnext_options complete = complete_options(options);
    const api::Target target = api::choose_target(complete);
    require(!is_present(complete.block_table), ErrorKind::kNotImplemented,
            "block_table is not supported here, found paged keys");
    const attnext_gradients wanted = complete_gradients(gradients);
    const Resolved resolved = resolve_problem(q, k, v, Values::kNeeded, options);
    const BackwardParams params = resolve_backward(resolved, {dout, out, lse, dlse}, wanted);
    if (!is_any_wanted(wanted)) return;
    if (target.plugin) return target.run(&Plugin::backward, params, wanted);
    run_backward(params, wanted, *target.kernels);
  });
}
