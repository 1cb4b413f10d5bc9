// Which weights dropout keeps, for callers who want to see it: the bits the kernels draw.
#include "api/backend.h"
#include "api/guard.h"
#include "attention/random.h"
#include "attention/tensor_rules.h"
#include "attention/validate.h"
#include "cpu/parallel.h"

using namespace attnext;

namespace {

struct KeepMask {
  const int64_t* shape;  // [batch, num_heads_q, seqlen_q, seqlen_k]
  uint64_t seed, threshold;
  uint32_t stream;
  uint8_t* keep;
};

// One row of keys; `row` counts (batch, head, query).
void draw_row(const KeepMask& m, int64_t row) {
  const int64_t seqlen_q = m.shape[2], seqlen_k = m.shape[3];
  uint8_t* const keep = m.keep + row * seqlen_k;
  for (int64_t block = 0; 4 * block < seqlen_k; ++block) {
    uint32_t words[4];
    dropout_words(m.seed, m.stream, row / seqlen_q, row % seqlen_q, block, words);
    const int64_t lanes = min_of(4, seqlen_k - 4 * block);
    uint8_t* const target = keep + 4 * block;
    for (int64_t lane = 0; lane < lanes; ++lane) target[lane] = words[lane] >= m.threshold;
  }
}

int64_t count_elements(const int64_t* shape) {
  int64_t count = 1;
  bool fits = true;
  for (int axis = 0; axis < 4; ++axis) {
    fits &= shape[axis] >= 0 && !__builtin_mul_overflow(count, shape[axis], &count);
  }
  require(fits, "shape must have axes of at least 0 and a product within 64 bits, found ",
          ShapeText{shape, 4});
  return count;
}

void draw_on_cpu(const KeepMaskParams& params, int64_t count) {
  const int64_t rows = count / params.shape[3];
  KeepMask job{params.shape, params.seed, drop_threshold(params.probability), params.stream,
               params.keep};
  const double cost = 20.0 * static_cast<double>(count);
  cpu::parallel_for(
      rows, cpu::num_workers(rows, cost),
      [](void* context, int64_t row, int) { draw_row(*static_cast<KeepMask*>(context), row); },
      &job);
}

}  // namespace

attnext_status attnext_dropout_mask_on(const attnext_options* options, const int64_t shape[4],
                                       uint8_t* keep) {
  return api::guarded("dropout_mask", [&] {
    const attnext_options o = complete_options(options);
    const api::Target target = api::choose_target(o);
    require(shape != nullptr, "shape must be given, found a null pointer");
    const int64_t count = count_elements(shape);
    require(keep != nullptr || count == 0, "keep must be given, found a null pointer");
    require(o.dropout >= 0 && o.dropout <= 1, "dropout must be in [0, 1], found ", o.dropout);
    if (count == 0) return;
    const KeepMaskParams params{.shape = {shape[0], shape[1], shape[2], shape[3]},
                                .probability = o.dropout,
                                .seed = o.seed,
                                .stream = o.dropout_stream,
                                .keep = keep};
    if (target.plugin) return target.run(&Plugin::dropout_mask, params);
    draw_on_cpu(params, count);
  });
}

attnext_status attnext_dropout_mask(const int64_t shape[4], double dropout, uint64_t seed,
                                    uint32_t dropout_stream, uint8_t* keep) {
  attnext_options options;
  attnext_options_init(&options);
  options.dropout = dropout;
  options.seed = seed;
  options.dropout_stream = dropout_stream;
  return attnext_dropout_mask_on(&options, shape, keep);
}
