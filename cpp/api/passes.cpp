// What the passes that only read a problem do: forward, weights, stats.
#include "api/backend.h"
#include "api/guard.h"
#include "attention/elements.h"
#include "attention/validate.h"

using namespace attnext;

attnext_status attnext_forward(const attnext_tensor* q, const attnext_tensor* k,
                               const attnext_tensor* v, const attnext_options* options,
                               const attnext_tensor* out, const attnext_tensor* lse) {
  return api::guarded("attention", [&] {
    const api::Target target = api::choose_target(complete_options(options));
    const Resolved resolved = resolve_problem(q, k, v, Values::kNeeded, options);
    const ForwardParams params = resolve_forward(resolved, out, lse);
    if (num_elements(params.out) == 0 && num_elements(params.lse) == 0) return;
    if (target.plugin) return target.run(&Plugin::forward, params);
    target.kernels->forward(params);
  });
}

attnext_status attnext_weights(const attnext_tensor* q, const attnext_tensor* k,
                               const attnext_options* options, const attnext_tensor* rows,
                               const attnext_tensor* p) {
  return api::guarded("attention_weights", [&] {
    const api::Target target = api::choose_target(complete_options(options));
    const Resolved resolved = resolve_problem(q, k, nullptr, Values::kNone, options);
    ChosenRows chosen_rows;
    const WeightsParams params = resolve_weights(resolved, rows, p, chosen_rows);
    if (num_elements(params.p) == 0) return;
    if (target.plugin) return target.run(&Plugin::weights, params);
    target.kernels->weights(params);
  });
}

attnext_status attnext_stats(const attnext_tensor* q, const attnext_tensor* k,
                             const attnext_options* options, const attnext_tensor* lse,
                             const attnext_tensor* row_max, const attnext_tensor* entropy,
                             const attnext_tensor* key_mass) {
  return api::guarded("attention_stats", [&] {
    const api::Target target = api::choose_target(complete_options(options));
    const Resolved resolved = resolve_problem(q, k, nullptr, Values::kNone, options);
    const StatsParams params = resolve_stats(resolved, {lse, row_max, entropy, key_mass});
    const bool has_rows = num_elements(params.lse) > 0 || num_elements(params.row_max) > 0 ||
                          num_elements(params.entropy) > 0;
    if (!has_rows && num_elements(params.key_mass) == 0) return;
    if (target.plugin) return target.run(&Plugin::stats, params);
    target.kernels->stats(params);
  });
}
