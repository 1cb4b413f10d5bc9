// From what a caller passed to what a kernel runs: every contract is checked here, once.
#pragma once

#include <vector>

#include "attention/params.h"

namespace attnext {

// A problem and the arrays it points to; movable, as vectors keep their memory.
struct Resolved {
  Problem problem;
  attnext_options options;  // complete, whatever size the caller's were
  std::vector<Sequence> sequences;
  std::vector<double> scale, alibi_slopes, sinks, weight, score_bias;

  Resolved() = default;
  Resolved(Resolved&&) = default;
  Resolved& operator=(Resolved&&) = default;
};

// The caller's struct over our defaults, up to the caller's size; null: all defaults.
attnext_options complete_options(const attnext_options* options);
attnext_gradients complete_gradients(const attnext_gradients* gradients);

// Passes without values pass a null `v` and say so.
enum class Values { kNeeded, kNone };
Resolved resolve_problem(const attnext_tensor* q, const attnext_tensor* k, const attnext_tensor* v,
                         Values values, const attnext_options* options);

ForwardParams resolve_forward(const Resolved& resolved, const attnext_tensor* out,
                              const attnext_tensor* lse);

struct BackwardInputs {
  const attnext_tensor *dout, *out, *lse, *dlse;
};
// The per-head sums of the result are null: they are the caller's to provide.
BackwardParams resolve_backward(const Resolved& resolved, const BackwardInputs& inputs,
                                const attnext_gradients& gradients);

// What the pointers of WeightsParams point to.
struct ChosenRows {
  std::vector<int64_t> rows, places, begins;
};
WeightsParams resolve_weights(const Resolved& resolved, const attnext_tensor* rows,
                              const attnext_tensor* p, ChosenRows& chosen_rows);

struct StatsOutputs {
  const attnext_tensor *lse, *row_max, *entropy, *key_mass;
};
StatsParams resolve_stats(const Resolved& resolved, const StatsOutputs& outputs);

// The rules of the sequences: lengths, packing, pages, diagonal. Parts of resolve_problem; the
// ranks come first, as the axes of q, k and v are read through them.
void check_sequence_ranks(const attnext_options& options);
std::vector<Sequence> resolve_sequences(const attnext_options& options, const Problem& problem);
// Keys a sequence could have; paged, as many as a row of block_table can name.
int64_t available_keys(const attnext_options& options, const Problem& problem);

}  // namespace attnext
